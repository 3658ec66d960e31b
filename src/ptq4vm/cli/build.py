"""From configuration nodes to built objects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger

from ptq4vm.api import build_network
from ptq4vm.cli.app import plain
from ptq4vm.data.base import ClipDataset
from ptq4vm.data.datamodule import MattingDataModule
from ptq4vm.errors import ConfigError
from ptq4vm.flow.cache import FlowCache
from ptq4vm.io import default_cache_dir
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.spec import ActivationSpec, Partition, QuantSpec, WeightSpec
from ptq4vm.stages.gac import GACSettings
from ptq4vm.stages.method import CalibrationSettings, Method, Preset
from ptq4vm.stages.reconstruction import ReconstructionSettings

T = TypeVar("T")


def settings(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a settings dataclass. Raises :class:`ConfigError` for a key it does not have."""
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]} is unknown: use one of {', '.join(sorted(known))}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def quant_spec(cfg: DictConfig) -> QuantSpec:
    """Bits of ``bits``, everything else of ``method.quantizer``."""
    choices = plain(cfg.method.quantizer)
    weight = settings(WeightSpec, {**choices["weight"], "bits": cfg.bits.weight}, "method.quantizer.weight")
    activation = settings(
        ActivationSpec, {**choices["activation"], "bits": cfg.bits.activation}, "method.quantizer.activation"
    )
    return QuantSpec(weight, activation, choices["placement"], choices["edge_bits"])


def partition(cfg: DictConfig) -> Partition:
    """``model.partition``."""
    values = plain(cfg.model.partition)
    branches = {path: tuple(sizes) for path, sizes in values.pop("branches").items()}
    return settings(Partition, {**values, "branches": branches}, "model.partition")


def method(cfg: DictConfig) -> Method:
    """``method``, without its quantizer."""
    return settings(Method, {k: v for k, v in plain(cfg.method).items() if k != "quantizer"}, "method")


def preset(cfg: DictConfig) -> Preset:
    """``preset``."""
    values = plain(cfg.preset)
    return Preset(
        settings(CalibrationSettings, values["calibration"], "preset.calibration"),
        settings(ReconstructionSettings, values["reconstruction"], "preset.reconstruction"),
        settings(GACSettings, values["gac"], "preset.gac"),
    )


def network(cfg: DictConfig) -> MattingNetwork:
    """``model`` with its pretrained weights."""
    return build_network(cfg.model.family, plain(cfg.model.arguments), weights=cfg.model.weights, pretrained=True)


def datamodule(cfg: DictConfig, with_flow: bool) -> MattingDataModule:
    """The shared data module of ``data``, ``flow`` and ``preset.calibration``."""
    dataset: ClipDataset = instantiate(cfg.data)
    flow = FlowCache(default_cache_dir() / "flow", instantiate(cfg.flow)) if with_flow else None
    calibration = plain(cfg.preset.calibration)
    return MattingDataModule(
        dataset, flow, **calibration, num_workers=cfg.num_workers, memory_mib=cfg.memory_mib, seed=cfg.seed
    )


def trainer(cfg: DictConfig, run_dir: Path) -> Callable[..., pl.Trainer]:
    """Builds Trainers of ``trainer``, with a progress bar and everything below the run folder."""
    partial = instantiate(cfg.trainer)

    def build(callbacks: list[pl.Callback] | None = None, **kwargs: Any) -> pl.Trainer:
        return partial(callbacks=[*(callbacks or []), RichProgressBar()], default_root_dir=run_dir, **kwargs)

    return build


def loggers(cfg: DictConfig, run_dir: Path) -> Callable[[str], list[Logger]]:
    """Builds the loggers of ``logger`` for a stage, below the run folder; ``logger=null`` for none."""
    if cfg.logger is None:
        return lambda stage: []
    partial = instantiate(cfg.logger)
    return lambda stage: [partial(save_dir=str(run_dir / "logs"), name=stage)]


def quiet() -> None:
    """Leave Lightning's hints about hardware and tips out of the terminal."""
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
