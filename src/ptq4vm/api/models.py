"""Networks: a float one by its name, the quantized one of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptq4vm import settings
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES
from ptq4vm.ops.formats import channels_last
from ptq4vm.quant.checkpoint import load_quantized, read_info
from ptq4vm.quant.spec import Partition


@dataclass(frozen=True)
class Model:
    """A float network with what quantization needs to know about it.

    Attributes:
        network: The float network, in eval mode.
        partition: How the network is cut up: blocks, float modules and edge layers.
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
    partition = settings.partition(values["partition"]) if values.get("partition") else None
    return build_model(values["family"], values["arguments"], partition, weights)


def build_model(
    family: str,
    arguments: Mapping[str, Any],
    partition: Partition | None = None,
    weights: str | Path | None = None,
) -> Model:
    """Build a :class:`Model` with pretrained weights from its parts; see :func:`build_network`.

    Without a partition the network is cut up as its family says.
    """
    network = build_network(family, arguments, weights=weights)
    kind = FAMILIES[family]()
    if partition is None:
        partition = settings.partition(kind.partition(arguments))
    return Model(network, partition, {"family": family, "arguments": kind.complete(arguments, network)})


def build_network(
    family: str, arguments: Mapping[str, Any], weights: str | Path | None = None, pretrained: bool = True
) -> MattingNetwork:
    """Build a float network by family name.

    Args:
        family: A name in :data:`ptq4vm.models.family.FAMILIES`, such as ``rvm``.
        arguments: What the family needs to know; ``rvm`` takes ``variant`` and, optionally, ``refiner``.
        weights: A ``.pth`` or ``.safetensors`` file; the usual places when ``None``.
        pretrained: False leaves the parameters random, for a checkpoint that brings its own.

    Raises:
        ConfigError: Unknown family or argument.
        WeightsError: The weights cannot be found or do not fit.
    """
    kind = FAMILIES[family]()
    try:
        return kind.load(arguments, weights) if pretrained else kind.build(arguments)
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
    quantized = load_quantized(folder, network, info)
    assert isinstance(quantized, MattingNetwork)  # a copy of what the family built
    return channels_last(quantized)


def float_model(checkpoint: str | Path, weights: str | Path | None = None) -> Model:
    """Load the float network that a run folder's network was made from.

    Args:
        checkpoint: The run folder.
        weights: A file; the usual places when ``None``.

    Raises:
        CheckpointError: The folder holds no quantized network.
        WeightsError: The weights cannot be found or do not fit.
    """
    found = read_info(checkpoint)
    return build_model(found.model["family"], found.model["arguments"], found.partition, weights)
