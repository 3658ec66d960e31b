"""What an exported file says about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptq4vm.errors import CheckpointError, ExportError
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import Target
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES
from ptq4vm.quant.checkpoint import TENSORS, CheckpointInfo
from ptq4vm.quant.saturation import saturating_layers
from ptq4vm.runs.progress import recorded_fingerprint
from ptq4vm.system.cpu import Cpu

UNKNOWN = "unknown"
OWN_LICENCE = "made with ptq4vm, Apache-2.0"


_WITHOUT_VNNI = Cpu((), exact=False)


def describe(
    folder: Path,
    info: CheckpointInfo,
    network: MattingNetwork,
    shape: FrameShape,
    version: str,
    target: Target | None = None,
) -> dict[str, str]:
    """Gather what an exported file of a quantized network says about itself, all as text.

    Args:
        folder: Run folder that the network comes from.
        info: What the folder's ``quantizer.yaml`` says.
        network: The folder's quantized network.
        shape: Size of the frames that the graph takes.
        version: Version of ptq4vm that exports.
        target: Target of the file; when not given, its engine may cut sums off on CPUs without VNNI.

    Returns:
        ``bits`` (``w4a4``), ``edge_bits``, ``overflow`` (``safe`` where every CPU computes the integers exactly, by
        their codes or by what the target's engine does, otherwise ``vnni``), ``method``, ``model``, ``version``,
        ``calibration`` (hash of the clips), ``checkpoint`` (SHA-256 of the tensors), ``licence``, ``size``
        (``512x288``), ``dynamic`` and ``downsample_ratio``; ``state_strides`` (``4,8``) where they are not 2, 4, 8,
        ..., and ``size_step`` (``16``) where the graph holds no size, and may be re-shaped to multiples of that. What
        the run does not say is ``unknown``.

    Raises:
        CheckpointError: The tensors cannot be read.
        ConfigError: There is no such family of networks.
    """
    method = info.extra.get("method")
    exact = target is not None and target.exact(_WITHOUT_VNNI)
    return {
        "bits": _bits(info),
        "edge_bits": str(info.spec.edge_bits),
        "overflow": "vnni" if not exact and saturating_layers(network) else "safe",
        "method": str(method.get("name", UNKNOWN)) if isinstance(method, dict) else str(method or UNKNOWN),
        "model": _name(info.model),
        "version": version,
        "calibration": _calibration(folder),
        "checkpoint": checkpoint_hash(folder),
        "licence": _licence(info.model),
        **_of_shape(shape, network),
    }


def describe_float(
    model: Mapping[str, Any], network: MattingNetwork, checkpoint: str, shape: FrameShape, version: str
) -> dict[str, str]:
    """Gather what an exported file of a float network says about itself: the keys of :func:`describe` that apply.

    Args:
        model: Architecture of the network, ``{"family": ..., "arguments": {...}}``.
        network: The float network that is exported.
        checkpoint: Hash of the network's weights.
        shape: Size of the frames that the graph takes.
        version: Version of ptq4vm that exports.
    """
    return {
        "bits": "fp32",
        "method": "float",
        "model": _name(model),
        "version": version,
        "checkpoint": checkpoint,
        "licence": _licence(model),
        **_of_shape(shape, network),
    }


def check_origin(
    metadata: Mapping[str, str],
    file: Path,
    checkpoint: str | Path,
    model: Mapping[str, Any],
    info: CheckpointInfo | None,
) -> None:
    """Refuse an exported file that says it is of another network, or has other bits, than what it is compared with.

    Args:
        metadata: What the file says about itself; what it leaves open passes.
        file: Path of that file, for the message.
        checkpoint: What it is compared with, for the message.
        model: Architecture of that network.
        info: What its run folder says; ``None`` for the float network.

    Raises:
        ExportError: It is of another network.
    """
    expected = {"model": _name(model), "bits": "fp32" if info is None else _bits(info)}
    found = {key: metadata.get(key, UNKNOWN) for key in expected}
    if any(found[key] not in (UNKNOWN, value) for key, value in expected.items()):
        there, here = (" ".join(values.values()) for values in (found, expected))
        raise ExportError(
            f"{file} is of {there}, {checkpoint} of {here}: give the checkpoint that it was exported from"
        )


def _bits(info: CheckpointInfo) -> str:
    return info.label.lower()


def _name(model: Mapping[str, Any]) -> str:
    """What the family of an architecture calls it."""
    return FAMILIES[model["family"]]().model_name(model["arguments"])


def _licence(model: Mapping[str, Any]) -> str:
    """Of the weights, as the family says, and of this program."""
    return f"{FAMILIES[model['family']]().licence}; {OWN_LICENCE}"


def _of_shape(shape: FrameShape, network: MattingNetwork) -> dict[str, str]:
    strides = network.state_strides
    usual = strides == tuple(2 ** (number + 1) for number in range(len(strides)))
    step = network.size_step
    reshaped = step and not (shape.dynamic or shape.downsample_ratio != 1 or shape.height % step or shape.width % step)
    return {
        "size": f"{shape.width}x{shape.height}",
        "dynamic": str(shape.dynamic).lower(),
        "downsample_ratio": f"{shape.downsample_ratio}",
        **({} if usual else {"state_strides": ",".join(map(str, strides))}),
        **({"size_step": f"{step}"} if reshaped else {}),
    }


def checkpoint_hash(folder: Path) -> str:
    """Compute the SHA-256 of a run's ``model.safetensors``. Raises :class:`CheckpointError`."""
    try:
        return hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{folder / TENSORS} cannot be read ({error.strerror}): quantize again") from error


def _calibration(folder: Path) -> str:
    """Hash of the calibration clips, which the run keeps with its progress."""
    return recorded_fingerprint(folder).get("calibration_clips", UNKNOWN)
