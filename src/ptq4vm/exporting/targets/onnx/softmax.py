"""Softmax between codes, of which ONNX Runtime makes one operation with a limit of its own.

``QLinearSoftmax`` looks exponentials up in a table that is scaled so that ``n`` of them fit into a float32 with a
factor of e^5 to spare, and multiplies by the reciprocal of the result's scale before it divides by their sum. Where
that reciprocal is larger than ``148 n`` the product is infinite, and the largest weights of a row become 0 (ONNX
Runtime 1.31.1). Calibration gives such scales where attention is nearly even: no weight above ``1.7 / n``.
"""

from __future__ import annotations

import numpy as np

from ptq4vm.exporting.graph.editor import Editor, Grid

SAFE = 100
"""How many times the row's length the reciprocal of a scale may be, with a margin for files that are re-shaped."""


def keep_even_softmax_in_float(editor: Editor) -> None:
    """Let a softmax that ``QLinearSoftmax`` would compute wrongly, or whose rows have any length, be one of floats.

    Its codes become floats on a grid of steps of 1 and are multiplied by their scale then: ONNX Runtime joins a softmax
    with what comes right before it alone.

    Args:
        editor: Editor of a graph whose nodes are in order.
    """
    shapes = editor.shapes() if editor.nodes("Softmax") else {}
    for node in editor.nodes("Softmax"):
        source = editor.producer(node.input[0], "DequantizeLinear")
        quantizer = editor.only_reader(node.output[0], "QuantizeLinear")
        own, grid = (None if each is None else editor.grid(each) for each in (source, quantizer))
        if own is None or grid is None:
            continue
        sizes = shapes.get(node.input[0])
        length = sizes[editor.attributes(node).get("axis", -1)] if sizes else None
        if length is not None and 1 / grid.scale <= SAFE * length:
            continue
        bare = editor.dequantize(source.input[0], Grid(1.0, own.zero))
        node.input[0] = editor.add("Mul", [bare, editor.constant(np.float32(own.scale))])
    editor.finish()
