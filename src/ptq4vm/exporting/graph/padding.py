"""Zeros put around a picture before a convolution: the convolution itself can put them there."""

from __future__ import annotations

from typing import Any

from ptq4vm.exporting.graph.editor import Editor

_KEEPING = ("QuantizeLinear", "DequantizeLinear", "Div", "Clip", "Min", "Max")
"""What leaves 0 as it is, where it lies between the padding and the convolution: 0 is a value of every grid."""
_AXES = 4


def pad_in_convolutions(editor: Editor) -> None:
    """Make the padding by zeros that only one convolution reads a part of that convolution.

    Engines have kernels for a convolution that pads; a node before it would be a pass over the whole picture.
    """
    for conv in editor.nodes("Conv"):
        pad = _padding(editor, conv)
        sizes = None if pad is None else _sizes(editor, pad)
        if pad is None or sizes is None:
            continue
        attribute = next((each for each in conv.attribute if each.name == "pads"), None)
        own = [0] * len(sizes) if attribute is None else list(attribute.ints)
        if attribute is None:
            attribute = conv.attribute.add(name="pads", type=7)  # integers, in ONNX's list of types
        attribute.ints[:] = [a + b for a, b in zip(own, sizes, strict=True)]
        editor.redirect(pad.output[0], pad.input[0])
        editor.remove(pad)


def _padding(editor: Editor, conv: Any) -> Any:
    """The Pad node whose result reaches a convolution and nothing else; ``None`` where there is none."""
    name = conv.input[0]
    while editor.only_reader(name) is not None:
        node = editor.producer(name)
        if node is None or node.op_type == "Pad":
            return node
        if node.op_type not in _KEEPING:
            return None
        name = node.input[0]
    return None


def _sizes(editor: Editor, pad: Any) -> list[int] | None:
    """How much is put above, left, below and right of a picture; ``None`` where it is something else than zeros."""
    amounts = editor.value(pad.input[1])
    filling = editor.value(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else 0
    mode = editor.attributes(pad).get("mode", b"constant")
    if amounts is None or filling is None or filling != 0 or mode != b"constant" or len(amounts) != 2 * _AXES:
        return None
    before, after = amounts[:_AXES].tolist(), amounts[_AXES:].tolist()
    if any((*before[:2], *after[:2])) or min(*before, *after) < 0:
        return None
    return [*before[2:], *after[2:]]
