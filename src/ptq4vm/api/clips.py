"""Clips: a data set by its name, the clips that a run folder tells of, and where optical flow comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptq4vm import settings
from ptq4vm.api.models import float_model
from ptq4vm.data.base import ClipDataset, NeedsTruth
from ptq4vm.data.datasets.backgrounds import BackgroundsDataset
from ptq4vm.data.datasets.demo import DemoDataset
from ptq4vm.data.datasets.folder import FolderDataset
from ptq4vm.data.datasets.footage import FootageDataset
from ptq4vm.data.datasets.stills import StillsDataset
from ptq4vm.data.datasets.videomatte import VideoMatteDataset
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.base import FlowEstimator, SourceFlow
from ptq4vm.flow.dis import DISFlow
from ptq4vm.flow.raft import RAFTFlow
from ptq4vm.pipeline.teacher import make_truth
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.types import ClipSource

DATASETS: dict[str, Callable[..., ClipDataset]] = {
    "aim": StillsDataset,
    "backgrounds_image": BackgroundsDataset,
    "backgrounds_video": BackgroundsDataset,
    "d646": StillsDataset,
    "demo": DemoDataset,
    "folder": FolderDataset,
    "footage": FootageDataset,
    "videomatte": VideoMatteDataset,
    "videomatte240k": VideoMatteDataset,
}
FLOWS: dict[str, Callable[..., FlowEstimator | SourceFlow]] = {
    "analytic": AnalyticFlow,
    "dis": DISFlow,
    "raft": RAFTFlow,
}


def load_data(name: str, seed: int = 0, **arguments: Any) -> ClipDataset:
    """A data set by its name in ``conf/data``.

    Args:
        name: ``demo``, ``folder``, ``videomatte``, ``videomatte240k``, ``d646``, ``aim``, ``footage``,
            ``backgrounds_video`` or ``backgrounds_image``.
        seed: Of what it draws.
        arguments: In place of the values in ``conf/data/<name>.yaml``: ``root``, ``calibration_root``, ...

    Raises:
        ConfigError: Unknown name or argument, or one that is missing.
    """
    return _build(DATASETS, "data", name, {"seed": seed}, arguments)


def load_flow(name: str, **arguments: Any) -> FlowEstimator | SourceFlow:
    """An optical flow provider by its name in ``conf/flow``: ``dis``, ``raft`` or ``analytic``.

    Raises:
        ConfigError: Unknown name or argument, or torchvision is missing.
    """
    return _build(FLOWS, "flow", name, {}, arguments)


def _build(
    table: Mapping[str, Callable[..., Any]],
    group: str,
    name: str,
    root: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> Any:
    values = {k: v for k, v in settings.read_choice(group, name, **root).items() if k != "_target_"}
    values.update(arguments)
    settings.check_arguments(table[name], values, group)
    return table[name](**values)


def recorded_clips(checkpoint: str | Path, weights: str | Path | None = None) -> Sequence[ClipSource]:
    """Evaluation clips of a run of ``ptq4vm quantize``, as ``quantizer.yaml`` tells; calibration clips without any.

    Args:
        checkpoint: The run folder.
        weights: Of the float network, whose alphas stand for the truth where clips have none.

    Raises:
        CheckpointError: It tells of no data set that this version knows, or of no clips.
        DataError: The clips are no longer there.
        WeightsError: The float network is needed and its weights cannot be found.
    """
    config = read_info(checkpoint).extra.get("config")
    config = config if isinstance(config, dict) else {}
    try:
        data = _dataset(config.get("data"))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}/quantizer.yaml: {error}") from error
    if isinstance(data, NeedsTruth):
        model = float_model(checkpoint, weights)
        make_truth(data, model.network, model.partition, float(config.get("downsample_ratio", 1)))
    clips = data.clips()
    found = clips.evaluation or clips.calibration
    if not found:
        raise CheckpointError(f"{checkpoint}/quantizer.yaml names a data set without clips")
    return found


def _dataset(values: Any) -> ClipDataset:
    """A data set from its configuration: one of ours, since a run folder must not say what is called."""
    arguments = dict(values) if isinstance(values, Mapping) else {}
    target = arguments.pop("_target_", None)
    known = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in DATASETS.values() if isinstance(cls, type)}
    if target not in known:
        raise ConfigError("names no known data set")
    settings.check_arguments(known[target], arguments, "data")
    return known[target](**arguments)
