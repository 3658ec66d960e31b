"""A whole run from Python: quantize a network and measure every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger

from ptq4vm.api.choices import chosen_preset, load_augmentation, load_method, needs_flow
from ptq4vm.api.clips import load_flow
from ptq4vm.api.models import Model
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.base import ClipDataset, NeedsTruth
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.errors import ConfigError
from ptq4vm.flow.base import FlowEstimator, SourceFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.io import default_cache_dir
from ptq4vm.limits import check_number
from ptq4vm.methods.method import Method, Preset
from ptq4vm.methods.mixed_bits import Budget
from ptq4vm.pipeline.judging import warn_of_departures
from ptq4vm.pipeline.pipeline import Pipeline
from ptq4vm.pipeline.run import RunResult
from ptq4vm.pipeline.teacher import make_truth
from ptq4vm.quant.spec import QuantSpec
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.output import write_run_folder
from ptq4vm.runs.layout import taken
from ptq4vm.runs.loggers import logging_into
from ptq4vm.system.trainers import LoggerFactory, TrainerFactory, trainers
from ptq4vm.version import __version__


def quantize(
    model: Model,
    data: ClipDataset,
    *,
    bits: str | QuantSpec = "w4a4",
    method: str | Method = "ptq4vm",
    overflow: str = "safe",
    preset: str | Preset | None = None,
    budget: Budget | None = None,
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
) -> RunResult:
    """Quantize a network on a data set's calibration clips and evaluate every stage on its evaluation clips.

    The same call on the same ``run_dir`` goes on where an earlier one was interrupted.

    Args:
        model: The float network, from :func:`load_model`; not changed.
        data: The data set, from :func:`load_data`.
        bits: Bits as text, ``fp32`` or ``wXaY``, or every choice at once.
        method: A name in ``conf/method``, or its switches; with the latter give ``bits`` as a :class:`QuantSpec`.
        overflow: ``safe``: the exported integers are exact on every CPU; ``vnni``: on those with VNNI. A
            :class:`QuantSpec` has its own.
        preset: A name in ``conf/preset``, or the schedules themselves. When not given it is what the method's file
            chooses, and ``quick`` where that chooses none.
        budget: Limit of mixed bits, whose layers and stored tensors get bits of their own; uniform bits without one.
        flow: Where optical flow comes from, looked at only when the method needs it.
        run_dir: Gets the network, metrics, timing, logs and pictures.
        overwrite: Whether to remove an earlier run from ``run_dir`` first.
        seed: Seed that decides everything random.
        num_workers: How many processes decode; 0 decodes in this one.
        downsample_ratio: Size at which the network is evaluated, as a fraction of the frames' size, in (0, 1].
        baseline: Whether to measure rounding to nearest with min-max ranges too.
        stage_cache: Folder where runs that begin alike share their reconstruction.
        flow_cache_mib: Limit of the flow cache, MiB; see :class:`ptq4vm.flow.cache.FlowCache`.
        augmentation: A name in ``conf/augmentation``, or its values.
        trainer: Builds Lightning Trainers; on the accelerator that there is, when not given.
        loggers: Gives the loggers of a training stage; CSV files when not given.
        notes: Values for people and other tools that go into ``quantizer.yaml``.

    Returns:
        The quantized network, the metrics of every stage, and seconds.

    Raises:
        PTQ4VMError: With one line that says what is wrong and what to do.
    """
    check_number("seed", seed)
    check_number("downsample_ratio", downsample_ratio)
    chosen, spec = _chosen(method, bits, overflow)
    if isinstance(data, NeedsTruth):
        make_truth(data, model.network, model.partition, downsample_ratio)
    schedule = chosen_preset(preset, method)
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
    pipeline = Pipeline(
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
        budget=budget or Budget(),
        downsample_ratio=downsample_ratio,
        baseline=baseline,
        stage_cache=None if stage_cache is None else Path(stage_cache),
        notes={"version": __version__, "seed": seed, **(notes or {})},
        finish=lambda result: write_run_folder(folder, result, pictures, spec.label),
    )
    with taken(folder, overwrite):
        result = pipeline.run()
    warn_of_departures(result.stages)
    return result


def _chosen(method: str | Method, bits: str | QuantSpec, overflow: str) -> tuple[Method, QuantSpec]:
    if isinstance(method, str):
        chosen, spec = load_method(method, bits if isinstance(bits, str) else "w4a4", overflow)
        return chosen, bits if isinstance(bits, QuantSpec) else spec
    if isinstance(bits, str):
        raise ConfigError("bits must be a QuantSpec where method is a Method: load_method gives both")
    return method, bits
