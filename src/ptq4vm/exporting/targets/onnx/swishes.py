"""Hard-swish between codes, of operations for which ONNX Runtime has kernels of integers: a sum and a product."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor, Grid

TOP = 255
"""The largest code."""
_OFFSET, _END = 3.0, 6.0
_SHIFTS, _FACTORS = np.linspace(-0.5, 0.5, 41), np.linspace(-0.004, 0.004, 41)
"""Where the gate's rounding may lie, in steps of it, and by what share its values may be larger."""


class Gate(NamedTuple):
    """The gate of a hard-swish, ``x + offset`` cut off at 0 and at the last of 256 codes.

    Attributes:
        offset: What is added to ``x``: 3, and where the gate's rounding lies.
        step: Between codes of the sum.
        scale: What a code stands for in the product.
        wrong: How many of the 256 codes that go in give another code than the function itself.
    """

    offset: float
    step: float
    scale: float
    wrong: int


def multiply_hard_swishes(editor: Editor) -> None:
    """Write hard-swish of codes as their sum with 3, cut off at 0 and 6 by its own rounding, times the codes.

    The gate has 256 codes itself, and is rounded to them. Which codes come out is known for every code that goes in, so
    where the rounding lies is chosen for as few wrong ones as can be; a wrong one is beside the right one.
    """
    for node in editor.nodes("HardSwish"):
        source = editor.producer(node.input[0], "DequantizeLinear")
        quantizer = editor.only_reader(node.output[0], "QuantizeLinear")
        own, grid = (None if each is None else editor.grid(each) for each in (source, quantizer))
        if own is None:
            continue
        gate = Gate(_OFFSET, _END / TOP, 1 / TOP, TOP) if grid is None else best_gate(own, grid)
        added = editor.dequantize(editor.constant(np.uint8(1)), Grid(gate.offset, 0))
        codes = editor.quantize(editor.add("Add", [node.input[0], added]), Grid(gate.step, 0))
        product = editor.add("Mul", [node.input[0], editor.dequantize(codes, Grid(gate.scale, 0))])
        editor.redirect(node.output[0], product)
        editor.remove(node)


@cache
def best_gate(source: Grid, result: Grid) -> Gate:
    """The gate with the fewest wrong codes, of these the one that is nearest to 3 and 6.

    Args:
        source: Grid of what goes in.
        result: Grid of what comes out.
    """
    x = (np.arange(TOP + 1) - source.zero) * source.scale
    right = _codes(x * np.clip(x + _OFFSET, 0, _END) / _END, result)
    # a gate that never reaches 6 may end where it ends, and has finer codes then
    ends = [_END, *([float(x[-1]) + _OFFSET] if x[-1] + _OFFSET < _END else [])]
    found = []
    for step in (end / TOP for end in ends):
        for shift in _SHIFTS:
            gate = np.clip(np.rint((x + _OFFSET) / step + shift), 0, TOP) * step / _END
            factors = _FACTORS if x[-1] < _OFFSET else np.zeros(1)  # where it does, its last code is 1
            wrong = (_codes(x * gate * (1 + factors[:, None]), result) != right).sum(1)
            best = int(np.argmin(wrong + np.abs(factors)))
            far = abs(shift) + 50 * abs(factors[best])
            chosen = Gate(_OFFSET + shift * step, step, step / _END * (1 + factors[best]), int(wrong[best]))
            found.append((chosen.wrong, far, chosen))
    return min(found)[2]


def _codes(y: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    return np.clip(np.rint(y / grid.scale) + grid.zero, 0, TOP)
