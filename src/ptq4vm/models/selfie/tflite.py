"""The network's weights from its TensorFlow Lite file: kernels and biases in the order in which the graph runs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptq4vm.errors import WeightsError
from ptq4vm.models.selfie.network import Selfie
from ptq4vm.system.extras import needed

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
_PARTS = 3  # of a convolution's inputs: the picture, the kernel and the bias
_ENLARGING = b"Convolution2DTransposeBias"


def read_layers(file: Path) -> list[Layer]:
    """Kernels and biases of a graph's convolutions, float32, as :class:`torch.nn.Conv2d` has them.

    The transposed convolution with which the graph ends is given as the 1x1 convolution that computes the same.

    Args:
        file: Verified beforehand: a damaged one is not always noticed.

    Raises:
        ConfigError: The package tflite is not installed.
        WeightsError: The file is no TensorFlow Lite graph, or holds something else than float16 and float32 weights.
    """
    schema = needed("tflite", "selfie")
    try:
        return list(_layers(schema, schema.Model.GetRootAsModel(file.read_bytes(), 0)))
    except (OSError, struct.error, TypeError, ValueError, IndexError, AttributeError) as error:
        raise WeightsError(f"{file} is no TensorFlow Lite graph of this network ({error}): fetch it again") from error


def _layers(schema: Any, model: Any) -> Iterator[Layer]:
    graph = model.Subgraphs(0)
    kinds = schema.BuiltinOperator
    halves: dict[int, int] = {}  # float16 constants by the float32 tensor that is made of them
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs = [operator.Inputs(index) for index in range(operator.InputsLength())]
        if kind == kinds.DEQUANTIZE:
            halves[operator.Outputs(0)] = inputs[0]
        elif kind in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D) or code.CustomCode() == _ENLARGING:
            if len(inputs) != _PARTS:
                raise ValueError(f"{len(inputs)} inputs of a convolution")
            kernel, bias = (_constant(schema, model, halves.get(index, index)) for index in inputs[1:])
            if kind == kinds.CONV_2D:
                yield kernel.transpose(0, 3, 1, 2), bias
            elif kind == kinds.DEPTHWISE_CONV_2D:
                yield kernel.transpose(3, 0, 1, 2), bias
            else:
                yield kernel.reshape(-1, kernel.shape[-1], 1, 1), np.tile(bias, kernel[..., 0].size)


def _constant(schema: Any, model: Any, index: int) -> NDArray[np.float32]:
    """A constant tensor of the graph, in its own layout."""
    tensor = model.Subgraphs(0).Tensors(index)
    types = {schema.TensorType.FLOAT16: np.float16, schema.TensorType.FLOAT32: np.float32}
    if tensor.Type() not in types:
        raise ValueError(f"weights of type {tensor.Type()}")
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    return data.view(types[tensor.Type()]).reshape(tensor.ShapeAsNumpy()).astype(np.float32)


def convert(file: Path, variant: str) -> dict[str, Tensor]:
    """State dict of ``Selfie(variant)``.

    Args:
        file: The graph, ``.tflite``.
        variant: ``general`` or ``landscape``.

    Raises:
        ConfigError: As :func:`read_layers`.
        WeightsError: As :func:`read_layers`; or a layer is missing or has another shape.
    """
    with torch.device("meta"):
        network = Selfie(variant)
    convolutions = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    layers = read_layers(file)
    if len(layers) != len(convolutions):
        raise WeightsError(f"{file} has {len(layers)} convolutions, not {len(convolutions)}: it is another network")
    state = {}
    for (path, module), (kernel, bias) in zip(convolutions, layers, strict=True):
        if kernel.shape != tuple(module.weight.shape) or len(bias) != len(module.weight):
            raise WeightsError(
                f"{file} has {kernel.shape} for {path}, not {tuple(module.weight.shape)}: another network"
            )
        state[f"{path}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        state[f"{path}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    return state
