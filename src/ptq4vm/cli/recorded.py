"""What a run folder tells of its run: its float network and its clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptq4vm import api, settings
from ptq4vm.data.base import DATASETS, ClipDataset, NeedsTruth
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.pipeline.teacher import make_truth
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.types import ClipSource


def float_model(checkpoint: str, weights: str | None = None) -> api.Model:
    """The float network that a run folder's network was made from.

    Args:
        checkpoint: The run folder.
        weights: A file; the usual places when ``None``.

    Raises:
        CheckpointError: The folder holds no quantized network.
        WeightsError: The weights cannot be found or do not fit.
    """
    found = read_info(checkpoint).model
    choice = settings.read_choice("model", f"{found['family']}_{found['arguments']['variant']}")
    return api.build_model(found["family"], found["arguments"], settings.partition(choice["partition"]), weights)


def recorded_clips(checkpoint: str, weights: str | None = None) -> Sequence[ClipSource]:
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
    """A data set from its configuration: a registered one, since a run folder must not say what is called."""
    arguments = dict(values) if isinstance(values, Mapping) else {}
    make = DATASETS.find(arguments.pop("_target_", None))
    if make is None:
        raise ConfigError("names no known data set")
    settings.check_arguments(make, arguments, "data")
    return make(**arguments)
