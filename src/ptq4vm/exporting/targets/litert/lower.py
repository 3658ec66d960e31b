"""From the ONNX graph of a frame to LiteRT's: node by node, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ptq4vm.exporting.graph.editor import Editor, Grid
from ptq4vm.exporting.targets.litert import arithmetic, pictures
from ptq4vm.exporting.targets.litert.convolution import convolve
from ptq4vm.exporting.targets.litert.model import Model
from ptq4vm.exporting.targets.litert.values import TOP, Values

_WRITERS: dict[str, Callable[[Values, Any], None]] = {
    "DequantizeLinear": arithmetic.dequantize,
    "QuantizeLinear": arithmetic.quantize,
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "HardSwish"), arithmetic.unary),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max"), arithmetic.binary),
    "Identity": arithmetic.same,
    "HardSigmoid": arithmetic.hard_sigmoid,
    "Clip": arithmetic.clip,
    "BatchNormalization": arithmetic.batch_normalization,
    "InstanceNormalization": arithmetic.instance_normalization,
    "Conv": convolve,
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), pictures.mean),
    **dict.fromkeys(("AveragePool", "MaxPool"), pictures.pool),
    "Concat": pictures.concat,
    "Split": pictures.split,
    "Slice": pictures.slice_,
    "Resize": pictures.resize,
    "DepthToSpace": pictures.depth_to_space,
}
FRAME = Grid(float(np.float32(1 / TOP)), 0)
"""Of a frame's bytes."""


class Lowered(NamedTuple):
    """A LiteRT graph with the numbers of the tensors that go in and come out, by name."""

    model: Model
    inputs: dict[str, int]
    outputs: dict[str, int]


def lower(editor: Editor, states: Mapping[str, Grid]) -> Lowered:
    """Write an ONNX graph as one for LiteRT, with pictures as they lie in memory.

    Args:
        editor: Editor of the graph, whose sizes are all known and whose nodes are in order.
        states: Grids of the states that go in and come out as codes, by the names that they go in with.

    Raises:
        ExportError: A node is none that LiteRT has, or there is no way of writing it.
    """
    values = Values(editor)
    inputs = {value.name: _input(values, value.name, states) for value in editor.graph.input}
    for node in list(editor.graph.node):
        if node.op_type == "DequantizeLinear" and editor.is_constant(node.input[0]):
            continue
        if node.output[0] in values.taken:
            continue
        writer = _WRITERS.get(node.op_type)
        if writer is None:
            raise pictures.refuse(node, "is none of LiteRT's and")
        writer(values, node)
    return Lowered(
        values.model, inputs, {value.name: _output(values, value.name, states) for value in editor.graph.output}
    )


def _input(values: Values, name: str, states: Mapping[str, Grid]) -> int:
    if name == "src":
        codes = "src:codes"
        number = values.new_codes(codes, *FRAME, shape=values.shape(name))
        values.dequantized[name] = (codes, np.array([FRAME.scale], np.float32))
    elif name in states:
        number = values.new_codes(name, *states[name])
    else:
        number = values.new_floats(values.shape(name), name)
    values.model.tensors[number].name = name
    return number


def _output(values: Values, name: str, states: Mapping[str, Grid]) -> int:
    grid = states.get(f"{name[:-1]}i")
    if name not in values.codes:
        number = values.floats(name)
    else:
        number = values.codes[name].usual[0] if grid is None else values.view(name, grid.scale)
    values.model.tensors[number].name = name
    return number
