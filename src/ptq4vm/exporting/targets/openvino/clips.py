"""Cutting off between two codes."""

from __future__ import annotations

from ptq4vm.exporting.graph.editor import Editor


def cut_off_as_floats(editor: Editor) -> None:
    """Write a Clip to [0, high] that reads codes as Relu and Min, of which OpenVINO makes no Clip.

    It lets a Clip take the codes themselves, with an end between two of them rounded down: where alpha is quantized,
    nothing would be more opaque than the last code below 1 (0.993 where 256 codes reach from -0.45 to 1.38). At 0 there
    always is a code.
    """
    for node in editor.nodes("Clip"):
        source, low, high = (*node.input, "", "")[:3]
        lowest = editor.value(low)
        if editor.producer(source, "DequantizeLinear") is None or lowest is None or float(lowest) or not high:
            continue
        output, name = node.output[0], node.name
        editor.remove(node)
        editor.add("Min", [editor.add("Relu", [source]), high], output, name)
    editor.finish()
