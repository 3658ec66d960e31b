"""From configuration nodes to built objects: what needs Hydra; the rest is in :mod:`ptq4vm.settings`."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from ptq4vm import settings
from ptq4vm.api import Model, build_model, needs_flow
from ptq4vm.cli.app import plain
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.base import ClipDataset, NeedsTruth
from ptq4vm.data.datasets.unlabelled import taken_out, with_unlabelled
from ptq4vm.errors import ConfigError
from ptq4vm.flow.base import FlowEstimator, SourceFlow
from ptq4vm.methods.method import Method, Preset
from ptq4vm.methods.mixed_bits import Budget
from ptq4vm.quant.spec import QuantSpec
from ptq4vm.report.tracking import RunInfo, Tracking
from ptq4vm.runs.loggers import logging_into
from ptq4vm.system.trainers import TrainerFactory, trainers

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """Values at the top of ``config.yaml``, which explains them."""

    seed: int
    run_dir: str
    overwrite: bool
    overflow: str
    budget: Mapping[str, Any]
    checkpoint: str
    pred: str | None
    true: str | None
    metrics: str
    downsample_ratio: float
    baseline: bool
    stage_cache: str | None
    flow_cache_mib: float | None
    whole_clips: bool
    num_workers: int
    memory_mib: float


def check(cfg: DictConfig, complete: bool = True) -> RunOptions:
    """Check that nothing is missing, and everything at the top level.

    Args:
        cfg: The composed configuration.
        complete: Whether every value is needed; else only those at the top level are looked at.

    Raises:
        ConfigError: A value is missing (``data.root``), unknown or of another type.
    """
    return check_options(RunOptions, cfg, complete)


def check_options(cls: type[T], cfg: DictConfig, complete: bool = True) -> T:
    """Do as :func:`check` for a command with values of its own at the top level: those of the dataclass ``cls``."""
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing and complete:
        raise ConfigError(f"{missing[0]} has no value: add {missing[0]}=... to the command")
    groups = HydraConfig.get().runtime.choices
    own = {str(k): cfg[k] for k in cfg if k not in groups}
    values = {k: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for k, v in own.items()}
    return settings.settings(cls, values, "")


def was_given(key: str) -> bool:
    """Whether the command line chooses a group's option or sets a value itself."""
    overrides: Sequence[str] = HydraConfig.get().overrides.task
    return any(override.lstrip("+").split("=")[0] == key for override in overrides)


def method(cfg: DictConfig) -> tuple[Method, QuantSpec]:
    """Build the method and the quantizers that ``method`` and ``bits`` choose."""
    values = plain(cfg.method)
    return settings.method(values), settings.quant_spec(plain(cfg.bits), values["quantizer"])


def budget(cfg: DictConfig) -> Budget:
    """Build the budget of bits."""
    return settings.budget(plain(cfg.budget))


def preset(cfg: DictConfig) -> Preset:
    """Build the schedules that ``preset`` chooses."""
    return settings.preset(plain(cfg.preset))


def model(cfg: DictConfig) -> Model:
    """Build ``model`` with its pretrained weights; cut up as its family says where it has no ``partition``."""
    values = plain(cfg.model)
    partition = settings.partition(values["partition"]) if values.get("partition") else None
    return build_model(values["family"], values["arguments"], partition, values.get("weights"))


def augmentation(cfg: DictConfig) -> Augmentation:
    """Build the augmentation that ``augmentation`` chooses."""
    return settings.augmentation(plain(cfg.augmentation))


def data(cfg: DictConfig) -> ClipDataset:
    """Build the data set that ``data`` chooses, with the pictures that its value ``unlabelled`` names."""
    own, folder = taken_out(plain(cfg.data))
    return with_unlabelled(_checked(own, "data"), folder)


def about_truth(dataset: ClipDataset) -> str:
    """Say for the title of a table what stands for the truth; empty where the data set has true alphas."""
    return f"; {dataset.truth}" if isinstance(dataset, NeedsTruth) and dataset.truth else ""


def flow(cfg: DictConfig, method: Method, spec: QuantSpec, preset: Preset) -> FlowEstimator | SourceFlow | None:
    """Build the provider that ``flow`` chooses, or give ``None`` where the method needs no optical flow."""
    return _checked(plain(cfg.flow), "flow") if needs_flow(method, spec, preset) else None


def _checked(values: Mapping[str, Any], group: str) -> Any:
    """The object of a group, its values checked against the annotations of its class first."""
    name = values.get("_target_")
    try:
        target = get_class(str(name))
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"{group}._target_={name} is no class that can be found: choose {group}= by its name"
        ) from error
    settings.check_arguments(target, {k: v for k, v in values.items() if not k.startswith("_")}, group)
    return instantiate(values)


def trainer(cfg: DictConfig, run_dir: Path) -> TrainerFactory:
    """Builds Trainers of ``trainer``.

    Raises:
        ConfigError: Lightning refuses it (no GPU): found by building one now, before anything takes its time.
    """
    make = trainers(run_dir, instantiate(cfg.trainer))
    make(logger=False, enable_checkpointing=False)
    return make


def loggers(cfg: DictConfig, run_dir: Path) -> Tracking:
    """Builds the loggers of ``logger`` for a stage, below the run folder; none for ``logger=none``.

    Raises:
        ConfigError: An argument is unknown, or a package that it needs is not installed.
    """
    return _tracking(cfg, RunInfo(run_dir, run_name(run_dir), _sweep_name(), plain(cfg)))


def sweep_tracking(cfg: DictConfig, folder: Path) -> Tracking:
    """What ``logger`` gives for the table of a whole sweep; see :func:`ptq4vm.report.tracking.log_sweep_table`.

    Args:
        cfg: The configuration of any job, or of the sweep.
        folder: The sweep's folder.
    """
    return _tracking(cfg, RunInfo(folder, folder.name, folder.name, {"logger": plain(cfg.logger)}))


def _tracking(cfg: DictConfig, info: RunInfo) -> Tracking:
    if not cfg.get("logger"):
        return Tracking(lambda stage: [])
    target = get_class(cfg.logger._target_)
    values = {key: value for key, value in plain(cfg.logger).items() if not key.startswith("_")}
    if not issubclass(target, Tracking):  # one of Lightning's loggers
        known = inspect.signature(target).parameters
        unknown = [key for key in values if key not in known]
        if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            raise ConfigError(f"logger.{unknown[0]} is unknown: keys in logger are {', '.join(known)}")
        return Tracking(logging_into(info.folder, instantiate(cfg.logger)))
    settings.check_arguments(target, values, "logger")
    return instantiate(cfg.logger)(info)


def run_name(run_dir: Path) -> str:
    """Name a run by what tells it from others: in a sweep the swept values, else the name of its folder."""
    return (HydraConfig.get().job.override_dirname if _sweep_name() else "") or run_dir.name


def _sweep_name() -> str | None:
    """Name of the sweep's folder, ``None`` for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


IRRELEVANT: tuple[tuple[str, type[Warning]], ...] = (
    (r".*`isinstance\(treespec, LeafSpec\)` is deprecated", Warning),  # between Lightning and torch
    (r"Found \d+ module\(s\) in eval mode at the start of training", UserWarning),  # batch norms are folded
    (r"The number of training batches \(\d+\) is smaller than the logging interval", UserWarning),
    (r"The '\w+_dataloader' does not have many workers", UserWarning),  # samples are kept decoded
    (r"Checkpoint directory .* exists and is not empty", UserWarning),  # resumed
    (r"`?Trainer.fit`? stopped: `max_epochs=", UserWarning),
)
"""Warnings that say nothing to a user of ours: beginning of the message, and category."""


def quiet() -> None:
    """Leave Lightning's tips and hints about hardware, and :data:`IRRELEVANT` warnings, out of the terminal."""
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message, category in IRRELEVANT:
        warnings.filterwarnings("ignore", message, category)


def notes(cfg: DictConfig) -> dict[str, Any]:
    """Give the whole configuration as plain values, for ``quantizer.yaml``."""
    return {"config": plain(cfg)}
