"""What our own engine of binary networks ran: its loops, by the operations of the file that they begin with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ptq4vm.engines.bitsizes import Size
from ptq4vm.engines.costs.operation import Operation

BINARY, SIGNS = "BinaryConv", "Sign"
FLOAT_CONVOLUTIONS = ("Conv", "ExactConv")
FLOAT_LAYER = "float by choice: this layer's weights are floats"
BETWEEN = "float by choice: between binary convolutions a .bits file keeps floats"
PACKED = "conversion: signs of floats become bits"


def operations(
    nodes: Sequence[Mapping[str, Any]], sizes: Mapping[str, Size], tasks: Sequence[tuple[int, float]]
) -> list[Operation]:
    """Loops as operations, in the order in which they begin; several of one node are one.

    Args:
        nodes: What the file says is to be done.
        sizes: Channels, rows and columns of every tensor.
        tasks: The number of every loop's node, and the milliseconds that the loop took of a frame.
    """
    spent: dict[int, float] = {}
    for number, milliseconds in tasks:
        spent[number] = spent.get(number, 0.0) + milliseconds
    return [_operation(number, nodes[number], sizes, milliseconds) for number, milliseconds in spent.items()]


def _operation(number: int, node: Mapping[str, Any], sizes: Mapping[str, Size], milliseconds: float) -> Operation:
    kind, (channels, rows, columns) = node["op"], sizes[node["out"][0]]
    convolves = kind == BINARY or kind in FLOAT_CONVOLUTIONS
    weight = "x".join(map(str, node["shape"])) if convolves else str(channels)  # a .bits file has no names of layers
    reason = {BINARY: "", SIGNS: PACKED}.get(kind, FLOAT_LAYER if convolves else BETWEEN)
    macs = math.prod(node["shape"]) * rows * columns if convolves else 0
    name = f"{number}: {weight} at {columns}x{rows}"
    return Operation(name, kind, "bin" if kind in (BINARY, SIGNS) else "f32", milliseconds, macs, reason)
