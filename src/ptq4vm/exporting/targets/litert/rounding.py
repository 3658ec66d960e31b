"""What happens to a result before it becomes codes, as bounds of the codes: LiteRT's own rounding cuts off there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor, Grid
from ptq4vm.exporting.targets.litert.values import TOP, Values

_BENDING = ("Relu", "Clip", "Min", "Max")


class Rounding(NamedTuple):
    """How a result becomes codes.

    Attributes:
        codes: Name of the codes.
        grid: Their grid; that of what goes into a hard sigmoid, where there is one.
        shift: What is added to the result before.
        low: The smallest code that there can be.
        high: The largest code that there can be.
        nodes: The nodes of the ONNX graph that say so.
    """

    codes: str
    grid: Grid
    shift: float
    low: int
    high: int
    nodes: tuple[Any, ...]

    def fused(self) -> tuple[str, float] | None:
        """LiteRT's function that cuts off at the bounds, and the scale at which it does; ``None`` where none does.

        Its functions cut off at 0, 1 and 6 of what codes stand for. Codes may stand for anything, since whoever reads
        them gets their scale from the ONNX graph: so that 6 is the largest one, for instance.
        """
        zero = self.grid.zero
        if self.high == TOP:
            name = "NONE" if self.low == 0 else "RELU" if self.low == zero else ""
            return (name, self.grid.scale) if name else None
        if self.low == zero < self.high:
            return "RELU6", 6 / (self.high - zero)
        if self.low == 0 and 2 * zero <= self.high:
            return "RELU_N1_TO_1", 1 / (self.high - zero)  # -1 lies below code 0
        return None


def rounding(editor: Editor, name: str, gates: bool = False) -> Rounding | None:
    """How a float tensor becomes codes, where it becomes nothing else; ``None`` where it does not.

    Args:
        editor: Editor of the ONNX graph.
        name: The float tensor.
        gates: Whether a hard sigmoid may come first: cut off on both sides, its codes are those of what goes into it.
    """
    bends: list[Any] = []
    slope, shift, low, high = 1.0, 0.0, 0, TOP
    node = editor.only_reader(name)
    if gates and node is not None and node.op_type == "HardSigmoid":
        slope, offset = hard_sigmoid(editor, node)
        shift = offset / slope
        bends.append(node)
        node = editor.only_reader(node.output[0])
    while node is not None and node.op_type in _BENDING:
        bends.append(node)
        node = editor.only_reader(node.output[0])
    if node is None or node.op_type != "QuantizeLinear":
        return None
    grid = editor.grid(node)
    if grid is None:
        return None
    for bend in bends:
        found = _bounds(editor, bend)
        if found is None:
            return None
        first, last = (_code(value, grid) for value in found)
        low, high = (min(max(code, first), last) for code in (low, high))
    return Rounding(node.output[0], Grid(grid.scale / slope, grid.zero), shift, low, high, (*bends, node))


def hard_sigmoid(editor: Editor, node: Any) -> tuple[float, float]:
    """Slope and offset of a HardSigmoid node."""
    attributes = editor.attributes(node)
    return float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5))


def _code(value: float, grid: Grid) -> int:
    if np.isinf(value):
        return TOP if value > 0 else 0
    return int(np.clip(np.rint(np.float32(value) / np.float32(grid.scale)) + grid.zero, 0, TOP))


def _bounds(editor: Editor, node: Any) -> tuple[float, float] | None:
    """The smallest and the largest value that a node lets through; ``None`` where they are not two constants."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type == "HardSigmoid":
        return 0.0, 1.0
    values = [editor.value(name) if name else None for name in node.input]
    if any(name and value is None for name, value in zip(node.input[1:], values[1:], strict=True)):
        return None
    numbers = [None if value is None else float(value.ravel()[0]) for value in values[1:]]
    if any(value is not None and value.size > 1 for value in values[1:]):
        return None
    if node.op_type == "Min":
        return (-np.inf, numbers[0]) if len(numbers) == 1 and numbers[0] is not None else None
    if node.op_type == "Max":
        return (numbers[0], np.inf) if len(numbers) == 1 and numbers[0] is not None else None
    low, high = (numbers + [None, None])[:2]
    return -np.inf if low is None else low, np.inf if high is None else high


def largest_code(editor: Editor, quantizer: Any) -> int:
    """The largest code that a QuantizeLinear node gives, by what stands before it."""
    bend = editor.producer(quantizer.input[0])
    upper = _upper(editor, bend)
    if upper is None:
        return TOP
    scale, zero = editor.scales(quantizer)
    return int(np.clip(np.rint(upper.ravel() / scale) + zero, 0, TOP).max())


def _upper(editor: Editor, node: Any) -> NDArray[Any] | None:
    """The constant beyond which a Clip or Min node lets nothing through, one value or one for each channel."""
    if node is None or node.op_type not in ("Clip", "Min") or not node.input[-1]:
        return None
    return editor.value(node.input[-1]) if len(node.input) == (3 if node.op_type == "Clip" else 2) else None


def stays(values: Values, node: Any) -> bool:
    """Whether a Clip or Min node, and the rounding behind it, leave codes that were rounded so before as they are.

    They are given the name that the graph knows them by then, and nothing is written.
    """
    editor, source = values.editor, values.dequantized.get(node.input[0])
    quantizer = editor.only_reader(node.output[0], "QuantizeLinear")
    if source is None or quantizer is None or _upper(editor, node) is None or (node.op_type == "Clip" and node.input[1]):
        return False
    scale, zero = editor.scales(quantizer)
    codes = values.codes[source[0]]
    alike = scale.shape == source[1].shape and bool((scale == source[1]).all()) and int(zero.ravel()[0]) == codes.zero
    if not alike or codes.top > largest_code(editor, quantizer):
        return False
    values.codes[quantizer.output[0]] = codes
    values.taken.add(quantizer.output[0])
    return True


def cut_off(values: Values, name: str, found: Rounding) -> None:
    """Give codes within their bounds the name that the graph knows them by, from the codes ``name`` that go beyond."""
    made = values.bare(name)
    for kind, bound in (("MAXIMUM", found.low), ("MINIMUM", found.high)):
        made = values.floats_by(kind, made, values.constant(np.float32([bound - found.grid.zero])))
    grid = np.ones(1, np.float32)
    values.quantize(made, found.codes, grid, found.grid.zero, found.high)
