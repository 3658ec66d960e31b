"""Channels that are always 0, where they let ONNX Runtime take its quick integer kernels on x86.

Its convolution without a copy of every window needs a multiple of 4 channels, the depthwise one a multiple of 16.
Otherwise it takes two to three times as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptq4vm.exporting.graph.editor import Editor, Grid

DEPTHWISE, DENSE = 16, 4
ALONG = (
    "QuantizeLinear", "DequantizeLinear", "Mul", "Add", "Sub", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish",
    "Tanh", "GlobalAveragePool",
)  # fmt: skip
"""Operations that keep channels apart."""


def pad_channels(editor: Editor) -> None:
    """Give depthwise convolutions, and convolutions over joined tensors, channels that are always 0."""
    _pad_depthwise(editor)
    for conv in _convolutions(editor):
        if not _is_depthwise(editor, conv):
            _pad_input(editor, conv)


def _weight(editor: Editor, conv: Any) -> Any:
    """The node that gives a convolution's weight from codes, or ``None``."""
    node = editor.producer(conv.input[1], "DequantizeLinear")
    return node if node is not None and editor.value(node.input[0]) is not None else None


def _convolutions(editor: Editor) -> list[Any]:
    return [conv for conv in editor.nodes("Conv") if _weight(editor, conv) is not None]


def _groups(conv: Any) -> int:
    return int(next((a.i for a in conv.attribute if a.name == "group"), 1))


def _shape(editor: Editor, conv: Any) -> tuple[int, ...]:
    codes = editor.value(_weight(editor, conv).input[0])
    assert codes is not None
    return codes.shape


def _is_depthwise(editor: Editor, conv: Any) -> bool:
    return _groups(conv) == _shape(editor, conv)[0] > 1


class _Sets:
    """Tensors whose channels belong together, by name."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, name: str) -> str:
        parent = self._parents.setdefault(name, name)
        if parent != name:
            self._parents[name] = parent = self.root(parent)
        return parent

    def join(self, names: list[str]) -> None:
        for name in names[1:]:
            self._parents[self.root(name)] = self.root(names[0])


def _pad_depthwise(editor: Editor) -> None:
    sets = _Sets()
    fixed: list[str] = [value.name for value in [*editor.graph.input, *editor.graph.output]]
    for node in editor.graph.node:
        names = [name for name in [*node.input, *node.output] if name and editor.value(name) is None]
        if node.op_type in ALONG:
            sets.join(names)
            constants = [editor.value(name) for name in node.input]
            if any(value is not None and value.size > 1 for value in constants):
                fixed.append(names[0])  # something for each channel, as in a weight
        elif node.op_type == "Conv" and _weight(editor, node) is not None:
            if _is_depthwise(editor, node):
                sets.join([node.input[0], node.output[0]])
        else:
            fixed.extend(names)
    pinned = {sets.root(name) for name in fixed}
    wanted: dict[str, int] = {}
    for conv in _convolutions(editor):
        root, count = sets.root(conv.output[0]), _shape(editor, conv)[0]
        if _is_depthwise(editor, conv) and count % DEPTHWISE and root not in pinned:
            wanted[root] = -(-count // DEPTHWISE) * DEPTHWISE
    for conv in _convolutions(editor):
        outputs, inputs = (wanted.get(sets.root(name), 0) for name in (conv.output[0], conv.input[0]))
        _widen(editor, conv, outputs, 0 if _is_depthwise(editor, conv) else inputs)


def _widen(editor: Editor, conv: Any, outputs: int = 0, inputs: int = 0) -> None:
    """Give a convolution's weight more channels, of zeros; 0 leaves their number."""
    node = _weight(editor, conv)
    codes, scales, zeros = (editor.value(name) for name in node.input)
    bias = editor.bias(conv)
    assert codes is not None and scales is not None and zeros is not None and bias is not None
    rows, columns = (max(0, wanted - have) for wanted, have in zip((outputs, inputs), codes.shape, strict=False))
    if not rows and not columns:
        return
    depthwise = _is_depthwise(editor, conv)
    node.input[0] = editor.constant(np.pad(codes, [(0, rows), (0, columns), (0, 0), (0, 0)]))
    if rows:
        node.input[1] = editor.constant(np.pad(scales, (0, rows), constant_values=1))
        node.input[2] = editor.constant(np.pad(zeros, (0, rows)))
        conv.input[2] = editor.constant(np.pad(bias, (0, rows)))
    if depthwise:
        next(a for a in conv.attribute if a.name == "group").i += rows


def _pad_input(editor: Editor, conv: Any) -> None:
    """Widen what a convolution reads to a multiple of 4 channels."""
    outputs, inputs = _shape(editor, conv)[:2]
    source = editor.producer(conv.input[0], "DequantizeLinear")
    grid = editor.grid(source) if source is not None else None
    missing = -inputs % DENSE
    if not missing or grid is None or _groups(conv) > 1 or outputs % DENSE or outputs < DEPTHWISE:
        return
    join = editor.producer(source.input[0], "Concat")
    if join is not None and editor.only_reader(join.output[0]) is not None:
        join.input[-1] = _padded(editor, join.input[-1], missing, grid)
    else:
        conv.input[0] = editor.dequantize(_padded(editor, source.input[0], missing, grid), grid)
    _widen(editor, conv, inputs=inputs + missing)


def _padded(editor: Editor, codes: str, count: int, grid: Grid) -> str:
    ends = editor.constant(np.array([0] * 5 + [count, 0, 0], np.int64))
    return editor.add("Pad", [codes, ends, editor.constant(np.uint8(grid.zero))])
