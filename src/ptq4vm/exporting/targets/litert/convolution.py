"""Convolutions, of integers where codes go in and come out, otherwise of floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import ExportError
from ptq4vm.exporting.graph.names import layer_of
from ptq4vm.exporting.targets.litert.model import Tensor
from ptq4vm.exporting.targets.litert.rounding import Rounding, cut_off, rounding
from ptq4vm.exporting.targets.litert.values import TOP, Values

SAME, VALID = 0, 1
"""LiteRT's names for padding."""
_LARGEST = 127
"""Of a weight's codes."""
_BIAS_LIMIT = 2.0**28
_LEAST_FACTOR, _MOST_FACTOR = 2.0**-30, 255.0
"""From a sum of products to codes."""
_STEPS = 4096
"""To a code of the result, of a bias to which no product is added."""


class Geometry(NamedTuple):
    """How a window goes over a picture."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    def padding(self, size: tuple[int, int], found: tuple[int, int]) -> int | None:
        """LiteRT's name for the padding of a picture of ``size`` whose result is of size ``found``; ``None`` for none.

        ``SAME`` puts the smaller half before.
        """
        wanted = []
        for place, length in enumerate(size):
            reach = (self.kernel[place] - 1) * self.dilations[place] + 1
            missing = max(0, (found[place] - 1) * self.strides[place] + reach - length)
            wanted.append((missing // 2, missing - missing // 2))
        if not any(map(any, wanted)):
            return VALID
        same = all(out == -(-length // stride) for out, length, stride in zip(found, size, self.strides, strict=True))
        before, after = self.pads[:2], self.pads[2:]
        fits = all(wanted[place] == (before[place], after[place]) for place in (0, 1))
        return SAME if same and fits else None


def geometry(attributes: dict[str, Any], kernel: Sequence[int]) -> Geometry:
    """The geometry that a node's attributes say. Raises :class:`ExportError` for padding that they leave open."""
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ExportError("target=litert: padding by auto_pad cannot be written")
    pairs = (tuple(kernel), tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1))))
    return Geometry(*pairs, tuple(attributes.get("pads", (0, 0, 0, 0))))  # type: ignore[arg-type]


class _Filter(NamedTuple):
    """A convolution of the ONNX graph."""

    geometry: Geometry
    groups: int
    shape: tuple[int, ...]

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.shape[1] == 1

    def laid_out(self, weight: NDArray[Any]) -> NDArray[Any]:
        """A weight as LiteRT has it: channels of the input last, those of the output where it is depthwise."""
        return np.ascontiguousarray(weight.transpose((1, 2, 3, 0) if self.depthwise else (0, 2, 3, 1)))


def convolve(values: Values, node: Any) -> None:
    """Write a Conv node."""
    editor = values.editor
    attributes = editor.attributes(node)
    maker = editor.producer(node.input[1], "DequantizeLinear")
    codes = None if maker is None else editor.value(maker.input[0])
    shape = editor.value(node.input[1]).shape if codes is None else codes.shape  # type: ignore[union-attr]
    filter_ = _Filter(geometry(attributes, shape[2:]), attributes.get("group", 1), shape)
    bias = editor.bias(node)
    bias = np.zeros(shape[0], np.float32) if bias is None else bias
    found = rounding(editor, node.output[0], gates=True)
    source = values.dequantized.get(node.input[0])
    if codes is not None and found is not None and source is not None and (source[1].size == 1 or filter_.depthwise):
        each = shape[0] // source[1].size if filter_.depthwise else 1
        scales = editor.scales(maker)[0].astype(np.float64) * np.repeat(source[1].ravel(), each)
        layer = _Layer(layer_of(maker), codes, np.broadcast_to(scales, shape[:1]), bias)
        _of_integers(values, filter_, source[0], layer, found)
        return
    weight = editor.value(node.input[1]) if codes is None else codes * editor.scales(maker)[0].reshape(-1, 1, 1, 1)
    assert weight is not None
    x, made = values.floats(node.input[0]), values.new_floats(values.shape(node.output[0]), node.output[0])
    constants = [filter_.laid_out(weight.astype(np.float32)), bias.astype(np.float32)]
    _add(values, filter_, [x, *map(values.constant, constants)], made, "NONE")


class _Layer(NamedTuple):
    """What a convolution multiplies by and adds.

    Attributes:
        path: The layer's, by which its tensors are called.
        codes: The weight's codes, laid out as in the ONNX graph.
        scales: Scale of the input times that of the weight, for every channel of the output.
        bias: For every channel of the output.
    """

    path: str
    codes: NDArray[Any]
    scales: NDArray[np.float64]
    bias: NDArray[np.float32]


def _of_integers(values: Values, filter_: _Filter, source: str, layer: _Layer, found: Rounding) -> None:
    """Write a convolution from codes to codes.

    The scales that its tensors give are not those of the ONNX graph: the weight makes up for both. So either may differ
    from channel to channel there, that of the input where the convolution is depthwise.

    Args:
        values: The tensors of the graph.
        filter_: The convolution.
        source: Name of the codes that go in.
        layer: Its numbers.
        found: How the result becomes codes.
    """
    function = found.fused()
    name, label = function or ("NONE", found.label)
    x, own = values.codes[source].usual
    path, codes, scales, bias = layer
    rows = codes.reshape(len(codes), -1).astype(np.int64)
    # larger codes at a smaller scale are the same weight, and the bias is a multiple of that scale
    finer = _LARGEST // np.maximum(np.abs(rows).max(1), 1)
    times = label / found.scale.astype(np.float64)
    steps = scales / finer / own * times
    steps = np.where(rows.any(1), steps, label / own / _STEPS)
    # of a channel that is all but dead, whose bias is far beyond its products, the first digits of the weight do
    shifted = (bias.astype(np.float64) + found.shift) * times / own
    coarser = np.maximum(1, np.ceil(np.abs(shifted / steps) / _BIAS_LIMIT))
    steps = (steps * coarser).astype(np.float32)
    counts = np.rint(shifted / steps.astype(np.float64))
    whole = np.rint(codes.astype(np.float64) * (finer / coarser).reshape(-1, 1, 1, 1))
    # XNNPACK takes these factors only; beyond them a sum of 1 is more than all codes, and the largest sum less than one
    steps = np.clip(steps, _LEAST_FACTOR * label / own, _MOST_FACTOR * label / own).astype(np.float32)
    weight = filter_.laid_out(whole.astype(np.int8))
    model = values.model
    numbers = [
        model.tensor(Tensor(f"{path}:weight", weight.shape, "int8", steps, 0, 3 * filter_.depthwise, weight)),
        model.tensor(
            Tensor(f"{path}:bias", bias.shape, "int32", np.float32(own) * steps, data=counts.astype(np.int32))
        ),
    ]
    codes_name = found.codes if function else f"{found.codes}:uncut"
    size = values.shape(found.codes)
    made = values.new_codes(codes_name, label, found.zero, found.high if function else TOP, size)
    _add(values, filter_, [x, *numbers], made, name)
    values.taken.update(each.output[0] for each in found.nodes)
    if not function:
        cut_off(values, codes_name, found)


def _add(values: Values, filter_: _Filter, inputs: list[int], output: int, function: str) -> None:
    way, size = filter_.geometry, values.model.tensors[output].shape
    source = values.model.tensors[inputs[0]]
    padding = way.padding(source.shape[1:3], size[1:3])  # type: ignore[arg-type]
    if padding is None:
        inputs = [pad(values, inputs[0], way.pads), *inputs[1:]]
        padding = VALID
    options = {
        "padding": padding, "strideH": way.strides[0], "strideW": way.strides[1],
        "dilationHFactor": way.dilations[0], "dilationWFactor": way.dilations[1],
        "fusedActivationFunction": ACTIVATIONS[function],
    }  # fmt: skip
    if filter_.depthwise:
        options["depthMultiplier"] = filter_.shape[0] // filter_.groups
    kind = "DEPTHWISE_CONV_2D" if filter_.depthwise else "CONV_2D"
    values.model.operation(kind, inputs, [output], 3, **options)


ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
"""Numbers of the functions in the schema."""


def pad(values: Values, x: int, pads: Sequence[int], lowest: bool = False) -> int:
    """Put zeros, or the lowest float, around a picture of floats or codes: above, left, below, right."""
    source = values.model.tensors[x]
    top, left, bottom, right = pads
    batch, height, width, channels = source.shape
    size = (batch, height + top + bottom, width + left + right, channels)
    made = values.model.tensor(
        Tensor(f"padded{len(values.model.tensors)}", size, source.kind, source.scale, source.zero)
    )
    ends = values.constant(np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32))
    if lowest:
        filling = values.constant(np.array([np.finfo(np.float32).min], np.float32))
        values.model.operation("PADV2", [x, ends, filling], [made], 1)
    else:
        values.model.operation("PAD", [x, ends], [made], 2)
    return made
