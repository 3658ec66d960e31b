"""Shaping an exported graph for TensorRT: signed codes, and a pair of rounding nodes in front of every layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptq4vm.errors import ExportError
from ptq4vm.exporting.graph.editor import Editor, Grid

MIDDLE = 128
"""The unsigned code that is 0 on a symmetric grid of 8 bits."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = ("Concat", "Split", "Slice")
"""Operations after which values are codes as before, if all that they read have one scale."""
RESAMPLING = ("Resize", "AveragePool", "GlobalAveragePool", "MaxPool")
ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def sign_codes(editor: Editor) -> None:
    """Make the codes of activations signed, with a zero point of 0: the same numbers, 128 less.

    Args:
        editor: Editor of a simplified graph whose rounding nodes are on the unsigned type; changed.

    Raises:
        ExportError: A zero point is not in the middle, or a tensor has fewer bits: it was not calibrated for TensorRT.
    """
    for node in [*editor.nodes("QuantizeLinear"), *editor.nodes("DequantizeLinear")]:
        scale, zero = editor.scales(node)
        if zero.dtype != np.uint8:
            continue
        if bool((zero != MIDDLE).any()):
            raise ExportError(
                f"target=tensorrt takes signed integers with a zero point of 0, and {node.name} has "
                f"{int(zero.ravel()[0]) - MIDDLE}: quantize with bits=w8a8 +target=tensorrt"
            )
        node.input[2] = editor.constant(np.zeros(scale.shape, np.int8))
    editor.drop_unread_constants()


def round_moved(editor: Editor) -> None:
    """Round what layers and resizing read after it was joined or cut, once more to the grid that it is on already.

    TensorRT wants a pair of rounding nodes at every input of a layer, and codes to come out of what codes go into.

    Args:
        editor: Editor of a graph in which sites that layers read side by side have one scale.
    """
    done: dict[str, str] = {}
    for layer in [node for node in editor.graph.node if node.op_type in (*WEIGHTED, *RESAMPLING)]:
        name = layer.input[0]
        source = editor.producer(name)
        if source is None or source.op_type not in MOVES:
            continue
        if name not in done:
            grids = _grids(editor, source)
            if len({grid for grid, _ in grids}) != 1:
                continue  # the rules say which layer it is
            done[name] = _pair(editor, name, grids[0][1])
        layer.input[0] = done[name]
    editor.finish()


def _grids(editor: Editor, node: Any) -> list[tuple[Grid, Any]]:
    """Grids of what a chain of moves reads, each with its node; none where something of it is no value of a grid."""
    found: list[tuple[Grid, Any]] = []
    for name in list(node.input) if node.op_type == "Concat" else [node.input[0]]:
        source = editor.producer(name)
        if source is not None and source.op_type == "DequantizeLinear":
            grid = editor.grid(source)
            own = [] if grid is None else [(grid, source)]
        else:
            own = _grids(editor, source) if source is not None and source.op_type in MOVES else []
        if not own:
            return []
        found += own
    return found


def _pair(editor: Editor, name: str, like: Any) -> str:
    """Round a tensor to the grid of another; gives the name of the result."""
    codes = editor.add("QuantizeLinear", [name, *like.input[1:]])
    return editor.add("DequantizeLinear", [codes, *like.input[1:]])
