"""What our own engine of binary networks ran: its loops, by the operations of the file that they begin with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ptq4vm.engines.bits.sizes import Size
from ptq4vm.engines.costs.operation import Operation

BINARY, SIGNS = "BinaryConv", "Sign"
FLOAT_CONVOLUTIONS = ("Conv", "ExactConv")
FLOAT_LAYER = "float by choice: this layer's weights are floats"
BETWEEN = "float by choice: between binary convolutions a .bits file keeps floats"
PACKED = "conversion: signs of floats become bits"


def operations(
    nodes: Sequence[Mapping[str, Any]], sizes: Mapping[str, Size], tasks: Sequence[tuple[tuple[int, ...], float]]
) -> list[Operation]:
    """Loops as operations, in the order in which they begin; several of the same nodes are one.

    Args:
        nodes: What the file says is to be done.
        sizes: Channels, rows and columns of every tensor.
        tasks: The numbers of every loop's nodes, and the milliseconds that the loop took of a frame.
    """
    spent: dict[tuple[int, ...], float] = {}
    for numbers, milliseconds in tasks:
        spent[numbers] = spent.get(numbers, 0.0) + milliseconds
    return [_operation(numbers, nodes, sizes, milliseconds) for numbers, milliseconds in spent.items()]


def _operation(
    numbers: tuple[int, ...], nodes: Sequence[Mapping[str, Any]], sizes: Mapping[str, Size], milliseconds: float
) -> Operation:
    """One loop; of convolutions that are added up in it, the first is the one with more products."""
    node = nodes[numbers[0]]
    kind, (channels, rows, columns) = node["op"], sizes[node["out"][0]]
    convolves = kind == BINARY or kind in FLOAT_CONVOLUTIONS
    # a .bits file has no names of layers
    weights = ["x".join(map(str, nodes[number]["shape"])) for number in numbers] if convolves else [str(channels)]
    reason = {BINARY: "", SIGNS: PACKED}.get(kind, FLOAT_LAYER if convolves else BETWEEN)
    macs = sum(math.prod(nodes[number]["shape"]) for number in numbers) * rows * columns if convolves else 0
    name = f"{numbers[0]}: {' + '.join(weights)} at {columns}x{rows}"
    return Operation(name, kind, "bin" if kind in (BINARY, SIGNS) else "f32", milliseconds, macs, reason)
