"""What happens to a result before it becomes codes, as bounds of the codes: LiteRT's own rounding cuts off there."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.targets.litert.values import TOP, Values

_BENDING = ("Relu", "Clip", "Min", "Max")


class Rounding(NamedTuple):
    """How a result becomes codes.

    Attributes:
        codes: Name of the codes.
        scale: Their scale, ``(1,)`` or ``(C,)``; of what goes into a hard sigmoid, where there is one.
        zero: The code of 0.
        shift: What is added to the result before.
        low: The smallest code that there can be.
        high: The largest code that there can be.
        nodes: The nodes of the ONNX graph that say so.
    """

    codes: str
    scale: NDArray[np.float32]
    zero: int
    shift: float
    low: int
    high: int
    nodes: tuple[Any, ...]

    @property
    def label(self) -> float:
        """What a LiteRT tensor of these codes gives as its scale: 1 where channels have scales of their own."""
        return float(self.scale[0]) if self.scale.size == 1 else 1.0

    def fused(self) -> tuple[str, float] | None:
        """LiteRT's function that cuts off at the bounds, and the scale at which it does; ``None`` where none does.

        Its functions cut off at 0, 1 and 6 of what codes stand for. Codes may stand for anything, since whoever reads
        them gets their scale from the ONNX graph: so that 6 is the largest one, for instance.
        """
        if self.high == TOP:
            name = "NONE" if self.low == 0 else "RELU" if self.low == self.zero else ""
            return (name, self.label) if name else None
        if self.low == self.zero < self.high:
            return "RELU6", 6 / (self.high - self.zero)
        if self.low == 0 and 2 * self.zero <= self.high:
            return "RELU_N1_TO_1", 1 / (self.high - self.zero)  # -1 lies below code 0
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
    scale, zeros = (each.ravel() for each in editor.scales(node))
    zero = int(zeros[0])
    for bend in bends:
        codes = [None if bound is None else _code(bound, scale, zero) for bound in _bounds(editor, bend)]
        if codes[0] is None or codes[1] is None:
            return None
        low, high = (min(max(code, codes[0]), codes[1]) for code in (low, high))
    return Rounding(node.output[0], (scale / slope).astype(np.float32), zero, shift, low, high, (*bends, node))


def hard_sigmoid(editor: Editor, node: Any) -> tuple[float, float]:
    """Slope and offset of a HardSigmoid node."""
    attributes = editor.attributes(node)
    return float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5))


def _code(bound: NDArray[Any], scale: NDArray[np.float32], zero: int) -> int | None:
    """The code at a bound; ``None`` where it is not the same for all channels."""
    codes = np.unique(np.clip(np.rint(bound.ravel().astype(np.float32) / scale) + zero, 0, TOP))
    return int(codes[0]) if len(codes) == 1 else None


def _bounds(editor: Editor, node: Any) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """The smallest and the largest value that a node lets through; ``None`` for one that is computed."""
    none, least, most = np.zeros(1), np.array([-np.inf]), np.array([np.inf])
    if node.op_type in ("Relu", "HardSigmoid"):
        return none, most if node.op_type == "Relu" else np.ones(1)
    values = [editor.value(name) if name else usual for name, usual in zip(node.input[1:], (least, most), strict=False)]
    if node.op_type == "Clip":
        return values[0], values[1] if len(values) > 1 else most
    if len(values) != 1:
        return None, None
    return (least, values[0]) if node.op_type == "Min" else (values[0], most)


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
    if (
        source is None
        or quantizer is None
        or _upper(editor, node) is None
        or (node.op_type == "Clip" and node.input[1])
    ):
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
        made = values.floats_by(kind, made, values.constant(np.array([bound - found.zero], np.float32)))
    values.quantize(made, found.codes, np.ones(1, np.float32), found.zero, found.high)
