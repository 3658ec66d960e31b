"""Arithmetic element by element: of integers where codes go in and come out, otherwise of floats.

A function of one tensor between codes and codes is written in floats; LiteRT's kernels for CPUs make a table of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.targets.litert.convolution import ACTIVATIONS
from ptq4vm.exporting.targets.litert.rounding import cut_off, largest_code, rounding, stays
from ptq4vm.exporting.targets.litert.rounding import hard_sigmoid as slope_and_offset
from ptq4vm.exporting.targets.litert.values import TOP, Values

_UNARY = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH"}
_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Min": "MINIMUM", "Max": "MAXIMUM"}


def dequantize(values: Values, node: Any) -> None:
    """Note which codes a DequantizeLinear node's floats are of; they are written where they are needed as floats."""
    values.dequantized[node.output[0]] = (node.input[0], values.editor.scales(node)[0])


def quantize(values: Values, node: Any) -> None:
    """Write a QuantizeLinear node that no other operation took in."""
    scale, zero = values.editor.scales(node)
    values.quantize(
        values.floats(node.input[0]), node.output[0], scale, int(zero.ravel()[0]), largest_code(values.editor, node)
    )


def same(values: Values, node: Any) -> None:
    """Give a tensor of floats another name, such as that of an output."""
    values.name(values.floats(node.input[0]), node.output[0])


def unary(values: Values, node: Any) -> None:
    """Write a function of one tensor."""
    x = values.floats(node.input[0])
    made = values.new_floats(values.model.tensors[x].shape, node.output[0])
    values.model.operation(_UNARY[node.op_type], [x], [made])


def binary(values: Values, node: Any) -> None:
    """Write a sum, difference, product, quotient, or the smaller or larger of two."""
    if stays(values, node) or (node.op_type in ("Add", "Sub", "Mul") and _binary_of_integers(values, node)):
        return
    inputs = [values.floats(name) for name in node.input]
    made = values.new_floats(values.shape(node.output[0]), node.output[0])
    values.model.operation(_BINARY[node.op_type], inputs, [made])


def _binary_of_integers(values: Values, node: Any) -> bool:
    """Write a sum, difference or product of codes that becomes codes; False, and nothing written, for another one."""
    found = rounding(values.editor, node.output[0])
    sources = [values.dequantized.get(name) for name in node.input]
    if found is None or found.scale.size > 1 or any(source is None or source[1].size > 1 for source in sources):
        return False
    function = found.fused()
    name, label = function or ("NONE", found.label)
    times = label / found.label  # of what the result stands for
    scales = [float(source[1].ravel()[0]) for source in sources if source is not None]
    scales = [scales[0] * times, scales[1] * (1 if node.op_type == "Mul" else times)]
    inputs = [values.view(source[0], scale) for source, scale in zip(sources, scales, strict=True) if source]
    codes = found.codes if function else f"{found.codes}:uncut"
    made = values.new_codes(codes, label, found.zero, found.high if function else TOP, values.shape(found.codes))
    values.model.operation(_BINARY[node.op_type], inputs, [made], 2, fusedActivationFunction=ACTIVATIONS[name])
    values.taken.update(each.output[0] for each in found.nodes)
    if not function:
        cut_off(values, codes, found)
    return True


def hard_sigmoid(values: Values, node: Any) -> None:
    """Write a HardSigmoid node."""
    slope, offset = (np.array([value], np.float32) for value in slope_and_offset(values.editor, node))
    x = values.floats_by("ADD", values.floats(node.input[0]), values.constant(offset / slope))
    x = values.floats_by("MAXIMUM", x, values.constant(np.zeros(1, np.float32)))
    x = values.floats_by("MINIMUM", x, values.constant(1 / slope))
    made = values.new_floats(values.model.tensors[x].shape, node.output[0])
    values.model.operation("MUL", [x, values.constant(slope)], [made])


def clip(values: Values, node: Any) -> None:
    """Write a Clip node."""
    if stays(values, node):
        return
    x = values.floats(node.input[0])
    bounds = zip(("MAXIMUM", "MINIMUM"), node.input[1:], strict=False)
    kinds = [(kind, values.floats(name)) for kind, name in bounds if name]
    for place, (kind, bound) in enumerate(kinds):
        name = node.output[0] if place == len(kinds) - 1 else ""
        made = values.new_floats(values.model.tensors[x].shape, name)
        values.model.operation(kind, [x, bound], [made])
        x = made


def batch_normalization(values: Values, node: Any) -> None:
    """Write a BatchNormalization of constants."""
    scale, shift, mean, variance = (values.editor.value(name) for name in node.input[1:5])
    assert scale is not None and shift is not None and mean is not None and variance is not None
    factor = (scale / np.sqrt(variance + values.editor.attributes(node).get("epsilon", 1e-5))).astype(np.float32)
    _scaled(values, values.floats(node.input[0]), factor, (shift - mean * factor).astype(np.float32), node.output[0])


def instance_normalization(values: Values, node: Any) -> None:
    """Write an InstanceNormalization."""
    x, axes = values.floats(node.input[0]), values.sizes(1, 2)
    batch, _, _, channels = values.model.tensors[x].shape
    small = (batch, 1, 1, channels)
    mean, variance = values.new_floats(small), values.new_floats(small)
    values.model.operation("MEAN", [x, axes], [mean], 1, keepDims=True)
    centred = values.floats_by("SUB", x, mean)
    values.model.operation("MEAN", [values.floats_by("MUL", centred, centred), axes], [variance], 1, keepDims=True)
    least = np.array([values.editor.attributes(node).get("epsilon", 1e-5)], np.float32)
    deviation = values.floats_by("SQRT", values.floats_by("ADD", variance, values.constant(least)))
    scale, shift = (values.editor.value(name) for name in node.input[1:3])
    assert scale is not None and shift is not None
    _scaled(values, values.floats_by("DIV", centred, deviation), scale, shift, node.output[0])


def _scaled(values: Values, x: int, factor: NDArray[np.float32], shift: NDArray[np.float32], name: str) -> None:
    """``x * factor + shift``, a value of each for a channel."""
    product = values.floats_by("MUL", x, values.constant(factor.reshape(1, 1, 1, -1)))
    made = values.new_floats(values.model.tensors[x].shape, name)
    values.model.operation("ADD", [product, values.constant(shift.reshape(1, 1, 1, -1))], [made])
