"""The library in a few calls: load a network, load clips, quantize, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.weights import load_rvm
from ptq4vm.quant.checkpoint import load_quantized, read_info


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
    network = build_network(info.model["family"], info.model["arguments"], pretrained=False)
    return load_quantized(folder, network, info)  # type: ignore[return-value]
