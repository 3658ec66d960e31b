"""Training of networks from Python: binary ones (BiVM), and float ones that have no published weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import CSVLogger

from ptq4vm import settings
from ptq4vm.api.choices import load_augmentation
from ptq4vm.api.models import Model, build_network, load_model
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.base import ClipDataset, NeedsTruth
from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_number
from ptq4vm.methods.binary.schedule import Schedule
from ptq4vm.models.base import TrainableMatting
from ptq4vm.models.family import FAMILIES
from ptq4vm.pipeline.binary import BinaryTraining
from ptq4vm.pipeline.run import RunResult
from ptq4vm.pipeline.teacher import make_truth
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.output import write_run_folder
from ptq4vm.runs.layout import taken
from ptq4vm.runs.loggers import logging_into
from ptq4vm.system.trainers import LoggerFactory, TrainerFactory, trainers
from ptq4vm.version import __version__


def load_schedule(name: str) -> Schedule:
    """Load a schedule of training by its name in ``conf/schedule``. Raises :class:`ConfigError`."""
    return settings.schedule(settings.read_choice("schedule", name))


def untrained(name: str = "bivm", seed: int = 0, weights: str | Path | None = None) -> Model:
    """Build a network by its name in ``conf/model``, to be trained.

    Args:
        name: A name in ``conf/model``, such as ``bivm``.
        seed: Seed that decides the random weights.
        weights: A file of weights to begin with instead, from the ``state`` of an earlier training.

    Raises:
        ConfigError: Unknown name, or no network that is trained here.
        WeightsError: The file is missing, damaged or another network's.
    """
    values = settings.read_choice("model", name)
    return untrained_model(values["family"], values["arguments"], seed, weights)


def untrained_model(
    family: str, arguments: Mapping[str, Any], seed: int = 0, weights: str | Path | None = None
) -> Model:
    """Build a network that is trained from its parts; see :func:`untrained`."""
    check_number("seed", seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = build_network(family, arguments, weights, pretrained=weights is not None)
    if not isinstance(network, TrainableMatting):
        raise ConfigError(f"model.family={family} is not trained but quantized: use ptq4vm quantize, or model=bivm")
    partition = settings.partition(FAMILIES[family]().partition(arguments))
    return Model(network, partition, {"family": family, "arguments": dict(arguments)})


def train(
    model: Model,
    data: ClipDataset,
    *,
    schedule: str | Schedule = "quick",
    teacher: Model | str | None = "rvm_mobilenetv3",
    run_dir: str | Path,
    overwrite: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    memory_mib: float = 1024,
    downsample_ratio: float = 1.0,
    augmentation: str | Augmentation = "none",
    trainer: TrainerFactory | None = None,
    loggers: LoggerFactory | None = None,
    notes: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train a network on a data set's calibration clips and evaluate it on its evaluation clips.

    The same call on the same ``run_dir`` goes on where an earlier one was interrupted. The folder is then a checkpoint
    like any other: for :func:`ptq4vm.api.evaluate`, :func:`ptq4vm.api.matte` and :func:`ptq4vm.api.export`.

    Args:
        model: The network, from :func:`untrained`; not changed.
        data: The data set, from :func:`ptq4vm.api.load_data`.
        schedule: A name in ``conf/schedule``, or the stages themselves.
        teacher: The float network, or its name in ``conf/model``; ``None`` trains on the truth alone.
        run_dir: Gets the network, metrics, timing, logs and pictures.
        overwrite: Whether to remove an earlier run from ``run_dir`` first.
        seed: Seed that decides everything random.
        num_workers: How many processes decode; 0 decodes in this one.
        memory_mib: Decoded samples beyond this many MiB are decoded again whenever they are used.
        downsample_ratio: Size at which the network is evaluated, as a fraction of the frames' size, in (0, 1].
        augmentation: A name in ``conf/augmentation``, or its values.
        trainer: Builds Lightning Trainers; on the accelerator that there is, when not given.
        loggers: Gives the loggers of a stage; CSV files when not given.
        notes: Values for people and other tools that go into ``quantizer.yaml``.

    Returns:
        The trained network, its metrics beside the float network's, seconds, steps and cost.

    Raises:
        PTQ4VMError: With one line that says what is wrong and what to do.
    """
    check_number("seed", seed)
    check_number("downsample_ratio", downsample_ratio)
    if not isinstance(model.network, TrainableMatting):
        raise ConfigError(f"{type(model.network).__name__} is not trained but quantized: use quantize, or model=bivm")
    chosen = load_schedule(schedule) if isinstance(schedule, str) else schedule
    source = load_model(teacher) if isinstance(teacher, str) else teacher
    if isinstance(data, NeedsTruth):
        if source is None:
            raise ConfigError("these clips have no alpha, and there is no float network to make it: give teacher=")
        make_truth(data, source.network, source.partition, downsample_ratio)
    folder, bits = Path(run_dir), model.network.weight_bits
    pictures = SheetCollector([clip.name for clip in data.clips().evaluation])
    training = BinaryTraining(
        network=model.network,
        model=model.architecture,
        partition=model.partition,
        teacher=None if source is None else source.network,
        dataset=data,
        schedule=chosen,
        run_dir=folder,
        trainer=trainer or trainers(folder),
        loggers=loggers or logging_into(folder, partial(CSVLogger, version="")),
        observer=lambda stage: pictures.observer(stage, foreground=stage != "fp32"),
        seed=seed,
        downsample_ratio=downsample_ratio,
        augmentation=load_augmentation(augmentation) if isinstance(augmentation, str) else augmentation,
        num_workers=num_workers,
        memory_mib=memory_mib,
        notes={"version": __version__, "seed": seed, **(notes or {})},
        finish=lambda result: write_run_folder(folder, result, pictures, "1 bit" if bits == 1 else "trained"),
    )
    with taken(folder, overwrite):
        return training.run()
