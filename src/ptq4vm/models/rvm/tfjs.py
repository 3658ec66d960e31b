"""RVM from its TensorFlow.js release: which of the stored arrays is which parameter.

The graph has batch norms folded into the convolutions, except three dilated depthwise ones that keep a scale and an
offset of their own. TensorFlow numbered the layers in the order in which they run: ``conv2d``, ``conv2d_1``, ...;
``depthwise_conv2d``, ...
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ptq4vm.errors import WeightsError
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.weights.tfjs import Array

_LAYER = re.compile(r"/(?P<layer>(?:depthwise_)?conv2d(?:_\d+)?)/(?P<part>.+)$")
_NORM = re.compile(r"/batch_normalization_(?P<index>\d+)/FusedBatchNormV3/(?P<part>Scaled|Offset)$")
_KERNELS = ("Conv2D_weights", "Conv2D/ReadVariableOp", "depthwise_weights", "depthwise/ReadVariableOp")
_OFFSETS = ("Conv2D_bn_offset", "BiasAdd/ReadVariableOp", "depthwise_bn_offset")


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
    """State dict of ``RVM("mobilenetv3", "fast_guided_filter")``.

    Batch norms get statistics under which they only add the folded bias (or apply the separate scale and offset):
    mean 0 and variance ``1 - eps``. The release has no segmentation head, so ``project_seg`` is zero, and no deep
    guided filter, so there are no ``refiner`` entries.

    Args:
        weights: From :func:`~ptq4vm.models.weights.tfjs.read_weights`.

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
