"""Reads RVM from its TensorFlow.js release: a graph (JSON) and one file of quantized weights.

The graph holds ``value = q * scale + min`` in uint8, convolutions as HWIO (depthwise as HWIM), and batch norms folded
into the convolutions, except three dilated depthwise ones that keep a scale and an offset of their own. TensorFlow
numbered the layers in the order in which they run: ``conv2d``, ``conv2d_1``, ...; ``depthwise_conv2d``, ...
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptq4vm.errors import WeightsError
from ptq4vm.models.rvm.network import RVM

Array = NDArray[np.float32]

_LAYER = re.compile(r"/(?P<layer>(?:depthwise_)?conv2d(?:_\d+)?)/(?P<part>.+)$")
_NORM = re.compile(r"/batch_normalization_(?P<index>\d+)/FusedBatchNormV3/(?P<part>Scaled|Offset)$")
_KERNELS = ("Conv2D_weights", "Conv2D/ReadVariableOp", "depthwise_weights", "depthwise/ReadVariableOp")
_OFFSETS = ("Conv2D_bn_offset", "BiasAdd/ReadVariableOp", "depthwise_bn_offset")


def read_weights(graph: Path, binary: Path) -> dict[str, Array]:
    """Float weights of a TensorFlow.js graph model, dequantized, by their full name.

    Raises:
        WeightsError: The files are not a TensorFlow.js graph model or do not belong together.
    """
    try:
        groups = json.loads(graph.read_text(encoding="utf-8"))["weightsManifest"]
        entries = [entry for group in groups for entry in group["weights"]]
        data = binary.read_bytes()
        return dict(_decode(entries, data))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{graph} and {binary.name} are not a TensorFlow.js model ({error!r}); delete them and fetch them again"
        ) from error


def _decode(entries: list[dict[str, Any]], data: bytes) -> Iterator[tuple[str, Array]]:
    position = 0
    for entry in entries:
        quantization = entry.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data, stored, count, position)
        position += count * stored.itemsize
        if entry["dtype"] != "float32":
            continue
        if quantization:
            # In float32 throughout: the reference values were computed from weights rounded this way.
            scale, low = np.float32(quantization["scale"]), np.float32(quantization["min"])
            values = values.astype(np.float32) * scale + low
        yield entry["name"], values.astype(np.float32, copy=False).reshape(entry["shape"])
    if position != len(data):
        raise ValueError(f"{len(data)} bytes of weights where the graph describes {position}")


@dataclass
class _Layer:
    """What the release stores of one convolution: kernel, folded bias, and the scale of a batch norm left unfolded."""

    kernel: Array | None = None
    offset: Array | None = None
    scale: Array | None = None


def _layers(weights: dict[str, Array]) -> dict[str, _Layer]:
    """Group the weights by TensorFlow's layer name (``conv2d_3``)."""
    layers: dict[str, _Layer] = {}
    scopes: dict[str, _Layer] = {}
    for name, value in weights.items():
        if match := _LAYER.search(name):
            layer = layers.setdefault(match["layer"], _Layer())
            scopes[name[: match.start()]] = layer
            if match["part"] in _KERNELS:
                layer.kernel = value
            elif match["part"] in _OFFSETS:
                layer.offset = value
    for name, value in weights.items():
        if (match := _NORM.search(name)) and (scope := name[: match.start()]) in scopes:
            if match["part"] == "Scaled":
                scopes[scope].scale = value
            else:
                scopes[scope].offset = value
    return layers


def convert(weights: dict[str, Array]) -> dict[str, Tensor]:
    """State dict of ``RVM("mobilenetv3", "fast_guided_filter")`` from what :func:`read_weights` gave.

    Batch norms get statistics under which they only add the folded bias (or apply the separate scale and offset):
    mean 0 and variance ``1 - eps``. The release has no segmentation head, so ``project_seg`` is zero, and no deep
    guided filter, so there are no ``refiner`` entries.

    Raises:
        WeightsError: A layer is missing or has another shape.
    """
    layers = _layers(weights)
    network = RVM("mobilenetv3", "fast_guided_filter")
    state = network.state_dict()
    counts: Counter[str] = Counter()
    layer = _Layer()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith("project_seg"):
            _set(state, f"{name}.weight", np.zeros(module.weight.shape, np.float32))
            _set(state, f"{name}.bias", np.zeros(1, np.float32))
        elif isinstance(module, nn.Conv2d):
            kind = "conv2d" if module.groups == 1 else "depthwise_conv2d"
            layer = layers.get(kind if counts[kind] == 0 else f"{kind}_{counts[kind]}", _Layer())
            counts[kind] += 1
            order = (3, 2, 0, 1) if module.groups == 1 else (2, 3, 0, 1)
            _set(state, f"{name}.weight", None if layer.kernel is None else layer.kernel.transpose(order))
            if module.bias is not None:
                _set(state, f"{name}.bias", layer.offset)
        elif isinstance(module, nn.BatchNorm2d):
            ones = np.ones(module.num_features, np.float32)
            _set(state, f"{name}.weight", ones if layer.scale is None else layer.scale)
            _set(state, f"{name}.bias", layer.offset)
            _set(state, f"{name}.running_mean", 0 * ones)
            _set(state, f"{name}.running_var", (1 - module.eps) * ones)
    return state


def _set(state: dict[str, Tensor], key: str, value: Array | None) -> None:
    """Replace one entry, whose shape must not change."""
    expected = tuple(state[key].shape)
    if value is None or value.shape != expected:
        found = "nothing" if value is None else value.shape
        raise WeightsError(f"the TensorFlow.js model has {found} for {key} {expected}: it is not RVM MobileNetV3")
    state[key] = torch.from_numpy(np.ascontiguousarray(value))
