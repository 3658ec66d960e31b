"""The library in a few calls: load a network, load clips, quantize, evaluate."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning.loggers import CSVLogger

from ptq4vm import settings
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.base import DATASETS, ClipDataset, NeedsTruth
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.evaluation.evaluator import FrameObserver
from ptq4vm.evaluation.evaluator import evaluate as measure
from ptq4vm.evaluation.results import EvaluationResult, metric_set
from ptq4vm.flow.base import FLOWS, FlowEstimator, SourceFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.io import default_cache_dir
from ptq4vm.methods.method import Method, Preset
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.weights import load_rvm
from ptq4vm.pipeline.pipeline import Pipeline, QuantizationResult
from ptq4vm.pipeline.teacher import folded, make_truth
from ptq4vm.quant.checkpoint import load_quantized, read_info
from ptq4vm.quant.spec import Partition, QuantSpec
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.output import write_run_folder
from ptq4vm.runs.layout import clear_run_folder
from ptq4vm.system.registry import Registry
from ptq4vm.system.trainers import EVALUATING, LoggerFactory, TrainerFactory, logging_into, trainers
from ptq4vm.version import __version__

log = logging.getLogger(__name__)

Built = TypeVar("Built")


@dataclass(frozen=True)
class Model:
    """A float network with what quantization needs to know about it.

    Attributes:
        network: In eval mode.
        partition: Its blocks, float modules and edge layers.
        architecture: ``{"family": ..., "arguments": {...}}``, from which ``quantizer.yaml`` lets it be rebuilt.
    """

    network: MattingNetwork
    partition: Partition
    architecture: Mapping[str, Any]


def load_model(name: str = "rvm_mobilenetv3", weights: str | Path | None = None) -> Model:
    """Load a network with its pretrained weights.

    Args:
        name: ``rvm_mobilenetv3`` or ``rvm_resnet50``.
        weights: A ``.pth`` or ``.safetensors`` file; found, fetched and cached when not given.

    Raises:
        ConfigError: Unknown name.
        WeightsError: The weights cannot be found or do not fit.
    """
    values = settings.read_choice("model", name)
    return build_model(values["family"], values["arguments"], settings.partition(values["partition"]), weights)


def build_model(
    family: str, arguments: Mapping[str, Any], partition: Partition, weights: str | Path | None = None
) -> Model:
    """Build a :class:`Model` with pretrained weights from its parts; see :func:`build_network`."""
    network = build_network(family, arguments, weights=weights)
    refiner = {"refiner": network.refiner_name} if isinstance(network, RVM) else {}
    return Model(network, partition, {"family": family, "arguments": {**arguments, **refiner}})


def build_network(
    family: str, arguments: Mapping[str, Any], weights: str | Path | None = None, pretrained: bool = True
) -> MattingNetwork:
    """Build a float network by family name.

    Args:
        family: ``rvm``.
        arguments: Of the family: ``variant`` and, optionally, ``refiner``.
        weights: A ``.pth`` or ``.safetensors`` file; the usual places when ``None``.
        pretrained: False leaves the parameters random, for a checkpoint that brings its own.

    Raises:
        ConfigError: Unknown family or argument.
        WeightsError: The weights cannot be found or do not fit.
    """
    if family != "rvm":
        raise ConfigError(f"model.family={family!r} is unknown: use rvm")
    try:
        if pretrained:
            return load_rvm(**arguments, weights=weights)
        return RVM(**arguments).eval()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.arguments={dict(arguments)} do not fit {family}: {error}") from error


def load_checkpoint(folder: str | Path) -> MattingNetwork:
    """Rebuild the quantized network of a run folder.

    Raises:
        CheckpointError: The folder holds no quantized network, or a damaged one.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder} is no folder: give a run folder that `ptq4vm quantize` wrote, or fp32")
    info = read_info(folder)
    try:
        network = build_network(info.model["family"], info.model["arguments"], pretrained=False)
    except ConfigError as error:
        raise CheckpointError(f"{folder}/quantizer.yaml names no known network: {error}") from error
    return load_quantized(folder, network, info).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_data(name: str, seed: int = 0, **arguments: Any) -> ClipDataset:
    """A data set by its name in ``conf/data``, or by the name under which a package from outside has registered it.

    Args:
        name: ``demo``, ``folder``, ``videomatte``, ``videomatte240k``, ``d646``, ``aim``, ``footage``,
            ``backgrounds_video`` or ``backgrounds_image``, or one of :data:`ptq4vm.data.base.DATASETS`.
        seed: Of what it draws.
        arguments: In place of the values in ``conf/data/<name>.yaml``: ``root``, ``calibration_root``, ...

    Raises:
        ConfigError: Unknown name or argument, or one that is missing.
    """
    return _build(DATASETS, "data", name, {"seed": seed}, arguments)


def load_flow(name: str, **arguments: Any) -> FlowEstimator | SourceFlow:
    """An optical flow provider by its name in ``conf/flow``: ``dis``, ``raft`` or ``analytic``, or in ``FLOWS``.

    Raises:
        ConfigError: Unknown name or argument, or torchvision is missing.
    """
    return _build(FLOWS, "flow", name, {}, arguments)


def _build(
    registry: Registry[Callable[..., Built]],
    group: str,
    name: str,
    root: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> Built:
    """What a file of ``conf`` describes or, where there is none of this name, what is registered under it."""
    make: Callable[..., Built] | None
    if name not in settings.choices(group) and name in registry:
        make = registry[name]
        known = inspect.signature(make).parameters
        values = {key: value for key, value in root.items() if key in known}
    else:
        values = settings.read_choice(group, name, **root)
        make = registry.find(target := values.pop("_target_", None))
        if make is None:
            raise ConfigError(f"{group}={name}: {target} is not registered: decorate it with register(name)")
    values.update(arguments)
    settings.check_arguments(make, values, group)
    return make(**values)


def load_preset(name: str) -> Preset:
    """A preset of ``conf/preset``; change it with :func:`dataclasses.replace`. Raises :class:`ConfigError`."""
    return settings.preset(settings.read_choice("preset", name))


def load_augmentation(name: str) -> Augmentation:
    """A choice of ``conf/augmentation``; change it with :func:`dataclasses.replace`. Raises :class:`ConfigError`."""
    return settings.augmentation(settings.read_choice("augmentation", name))


def load_method(name: str, bits: str = "w4a4", overflow: str = "safe") -> tuple[Method, QuantSpec]:
    """A method of ``conf/method`` and its quantizers.

    Args:
        name: Of the method.
        bits: ``wXaY`` or ``fp32``.
        overflow: ``safe`` or ``vnni``; see :class:`ptq4vm.quant.spec.QuantSpec`.

    Raises:
        ConfigError: A name is unknown.
    """
    values = settings.read_choice("method", name, overflow=overflow)
    return settings.method(values), settings.quant_spec(settings.read_choice("bits", bits), values["quantizer"])


def needs_flow(method: Method, spec: QuantSpec, preset: Preset) -> bool:
    """Whether a run looks at optical flow."""
    return method.global_settings(preset.gac).flow_weight > 0 and not spec.is_float


def quantize(
    model: Model,
    data: ClipDataset,
    *,
    bits: str | QuantSpec = "w4a4",
    method: str | Method = "ptq4vm",
    overflow: str = "safe",
    preset: str | Preset = "quick",
    flow: str | FlowEstimator | SourceFlow | None = "dis",
    run_dir: str | Path,
    overwrite: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    downsample_ratio: float = 1.0,
    baseline: bool = True,
    stage_cache: str | Path | None = None,
    flow_cache_mib: float | None = None,
    augmentation: str | Augmentation = "none",
    trainer: TrainerFactory | None = None,
    loggers: LoggerFactory | None = None,
    notes: Mapping[str, Any] | None = None,
) -> QuantizationResult:
    """Quantize a network on a data set's calibration clips and evaluate every stage on its evaluation clips.

    The same call on the same ``run_dir`` goes on where an earlier one was interrupted.

    Args:
        model: From :func:`load_model`; not changed.
        data: From :func:`load_data`.
        bits: ``fp32``, ``wXaY``, or every choice at once.
        method: A name in ``conf/method``, or its switches; with the latter give ``bits`` as a :class:`QuantSpec`.
        overflow: ``safe``: the exported integers are exact on every CPU; ``vnni``: on those with VNNI. A
            :class:`QuantSpec` has its own.
        preset: A name in ``conf/preset``, or the schedules themselves.
        flow: Where optical flow comes from, looked at only when the method needs it.
        run_dir: Gets the network, metrics, timing, logs and pictures.
        overwrite: Remove an earlier run from ``run_dir`` first.
        seed: Of everything random.
        num_workers: Decoding processes.
        downsample_ratio: Size at which the network is evaluated, as a fraction of the frames' size, in (0, 1].
        baseline: Also measure rounding to nearest with min-max ranges.
        stage_cache: Folder where runs that begin alike share their reconstruction.
        flow_cache_mib: Limit of the flow cache, MiB; see :class:`ptq4vm.flow.cache.FlowCache`.
        augmentation: A name in ``conf/augmentation``, or its values.
        trainer: Builds Lightning Trainers; on the accelerator that there is, when not given.
        loggers: Gives the loggers of a training stage; CSV files when not given.
        notes: For ``quantizer.yaml``.

    Returns:
        The quantized network, the metrics of every stage, and seconds.

    Raises:
        PTQ4VMError: With one line that says what is wrong and what to do.
    """
    chosen, spec = _chosen(method, bits, overflow)
    if isinstance(data, NeedsTruth):
        make_truth(data, model.network, model.partition, downsample_ratio)
    schedule = load_preset(preset) if isinstance(preset, str) else preset
    folder = Path(run_dir)
    flows = None
    if needs_flow(chosen, spec, schedule):
        if flow is None:
            raise ConfigError(f"method {chosen.name} needs optical flow: give flow=dis, or take ofa=false")
        provider = load_flow(flow) if isinstance(flow, str) else flow
        flows = FlowCache(default_cache_dir() / "flow", provider, limit_mib=flow_cache_mib)
    altered = load_augmentation(augmentation) if isinstance(augmentation, str) else augmentation
    values = {**asdict(schedule.calibration), "memory_mib": schedule.reconstruction.memory_mib}
    datamodule = MattingDataModule(data, flows, **values, num_workers=num_workers, seed=seed, augmentation=altered)
    pictures = SheetCollector([clip.name for clip in datamodule.evaluation_clips])
    label = "FP32" if spec.is_float else f"W{spec.weight.bits}A{spec.activation.bits}"
    if overwrite:
        clear_run_folder(folder)
    return Pipeline(
        network=model.network,
        model=model.architecture,
        datamodule=datamodule,
        spec=spec,
        partition=model.partition,
        method=chosen,
        preset=schedule,
        run_dir=folder,
        trainer=trainer or trainers(folder),
        loggers=loggers or logging_into(folder, partial(CSVLogger, version="")),
        observer=lambda stage: pictures.observer(stage, foreground=stage != "fp32"),
        seed=seed,
        downsample_ratio=downsample_ratio,
        baseline=baseline,
        stage_cache=None if stage_cache is None else Path(stage_cache),
        notes={"version": __version__, "seed": seed, **(notes or {})},
        finish=lambda result: write_run_folder(folder, result, pictures, label),
    ).run()


def _chosen(method: str | Method, bits: str | QuantSpec, overflow: str) -> tuple[Method, QuantSpec]:
    if isinstance(method, str):
        chosen, spec = load_method(method, bits if isinstance(bits, str) else "w4a4", overflow)
        return chosen, bits if isinstance(bits, QuantSpec) else spec
    if isinstance(bits, str):
        raise ConfigError("bits must be a QuantSpec where method is a Method: load_method gives both")
    return method, bits


def evaluate(
    model: Model | MattingNetwork,
    data: ClipDataset,
    *,
    downsample_ratio: float = 1.0,
    num_workers: int = 0,
    observers: Sequence[FrameObserver] = (),
    trainer: TrainerFactory | None = None,
    metrics: str = "lr",
    teacher: Model | None = None,
) -> EvaluationResult:
    """Measure a network on the evaluation clips of a data set.

    Args:
        model: A float :class:`Model`, or any network, such as ``QuantizationResult.network``. A Model is measured with
            its batch norms folded, as quantization sees it.
        data: From :func:`load_data`.
        downsample_ratio: Size at which the network runs, as a fraction of the frames' size, in (0, 1].
        num_workers: Decoding processes.
        observers: Shown every prediction.
        trainer: Builds the Lightning Trainer; on the accelerator that there is, when not given.
        metrics: ``lr`` (MAD, MSE, Grad, Conn, dtSSD) or ``hr`` (MAD, MSE, Grad, dtSSD, SAD); besides the
            foreground's MSE where the true foreground is known.
        teacher: Float network whose alpha stands for the truth of ``footage``; ``model`` where that is a Model.

    Raises:
        DataError: There are no evaluation clips, or they are damaged.
        TrainingError: A prediction is not finite.
        ConfigError: ``metrics`` is unknown, or footage has no teacher.
    """
    names = metric_set(metrics)
    if isinstance(data, NeedsTruth):
        float_model = teacher or (model if isinstance(model, Model) else None)
        if float_model is None:
            raise ConfigError(f"{data.truth}: give the float network as teacher=")
        make_truth(data, float_model.network, float_model.partition, downsample_ratio)
    return measure(
        folded(model.network, model.partition) if isinstance(model, Model) else model,
        MattingDataModule(data, num_workers=num_workers),
        (trainer or trainers())(**EVALUATING),
        downsample_ratio,
        observers,
        metrics=names,
        foreground=True,
    )
