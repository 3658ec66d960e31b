"""Clips: a data set by its name, the clips that a run folder tells of, and where optical flow comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ptq4vm import settings
from ptq4vm.api.models import float_model
from ptq4vm.data.base import DATASETS, ClipDataset, NeedsTruth
from ptq4vm.data.datasets.unlabelled import taken_out, with_unlabelled
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.flow.base import FLOWS, FlowEstimator, SourceFlow
from ptq4vm.pipeline.teacher import make_truth
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.system.registry import Registry
from ptq4vm.types import ClipSource

Built = TypeVar("Built")


def load_data(name: str, seed: int = 0, **arguments: Any) -> ClipDataset:
    """Build a data set by its name in ``conf/data``, or by the name under which a package from outside has registered
    it.

    Args:
        name: ``demo``, ``folder``, ``videomatte``, ``videomatte240k``, ``d646``, ``aim``, ``footage``,
            ``backgrounds_video`` or ``backgrounds_image``, or one of :data:`ptq4vm.data.base.DATASETS`.
        seed: Seed of everything that the data set draws, where it draws anything.
        arguments: In place of the values in ``conf/data/<name>.yaml``: ``root``, ``calibration_root``, ... For every
            data set ``unlabelled`` names a folder of pictures to calibrate on besides, which the float network labels.

    Raises:
        ConfigError: Unknown name or argument, or one that is missing.
    """
    return _data(*_chosen(DATASETS, "data", name, {"seed": seed}, arguments))


def load_flow(name: str, **arguments: Any) -> FlowEstimator | SourceFlow:
    """An optical flow provider by its name in ``conf/flow``: ``dis``, ``raft`` or ``analytic``, or in ``FLOWS``.

    Raises:
        ConfigError: Unknown name or argument, or torchvision is missing.
    """
    make, values = _chosen(FLOWS, "flow", name, {}, arguments)
    settings.check_arguments(make, values, "flow")
    return make(**values)


def _chosen(
    registry: Registry[Callable[..., Built]],
    group: str,
    name: str,
    root: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> tuple[Callable[..., Built], dict[str, Any]]:
    """The class that a file of ``conf`` names or, where there is none of this name, what is registered under it, and
    its values."""
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
    return make, {**values, **arguments}


def recorded_clips(checkpoint: str | Path, weights: str | Path | None = None) -> Sequence[ClipSource]:
    """Evaluation clips of a run of ``ptq4vm quantize``, as ``quantizer.yaml`` tells; calibration clips without any.

    Args:
        checkpoint: The run folder.
        weights: File with the weights of the float network, whose alphas stand for the truth where clips have none.

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
    """A data set from its configuration: a registered one, since a run folder must not say what is called."""
    arguments = dict(values) if isinstance(values, Mapping) else {}
    make = DATASETS.find(arguments.pop("_target_", None))
    if make is None:
        raise ConfigError("names no known data set")
    return _data(make, arguments, getattr(make, "writes_to", ()))  # nor where is written


def _data(make: Callable[..., ClipDataset], values: Mapping[str, Any], left_out: Sequence[str] = ()) -> ClipDataset:
    """A data set from its checked values but for some, joined by the unlabelled pictures that they name."""
    own, folder = taken_out(values)
    settings.check_arguments(make, own, "data")
    return with_unlabelled(make(**{key: value for key, value in own.items() if key not in left_out}), folder)
