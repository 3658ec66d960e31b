"""Simplifying an ONNX graph: constants that are computed, constants that are equal, and nodes that do nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor, Shapes
from ptq4vm.exporting.graph.padding import pad_in_convolutions
from ptq4vm.system.extras import needed

FOLDABLE = (
    *("Gather", "Unsqueeze", "Squeeze", "Concat", "Cast", "Slice", "Add", "Sub", "Mul", "Div"),
    *("ConstantOfShape", "Reshape", "Transpose"),
)
"""What sizes and paddings are computed with, when everything they depend on is constant."""
SMALL = 64
"""Elements of a constant that a size may depend on."""


def simplify(editor: Editor) -> None:
    """Turn constant nodes into initializers, compute what is constant, and remove nodes that do nothing."""
    _constants_to_initializers(editor)
    _bypass(editor, editor.nodes("Identity"))
    while _fold(editor):
        pass
    shapes = editor.shapes()
    _bypass(editor, [node for kind in ("Slice", "Resize") for node in editor.nodes(kind) if _known_same(shapes, node)])
    pad_in_convolutions(editor)
    _join_slices(editor, shapes)
    _join_equal_constants(editor)


def _constants_to_initializers(editor: Editor) -> None:
    for node in editor.nodes("Constant"):
        editor.set_constant(node.output[0], editor.held(node))
        editor.remove(node)


def _bypass(editor: Editor, nodes: list[Any]) -> None:
    """Remove nodes whose first input is as good as their output."""
    alias: dict[str, str] = {}
    for node in nodes:
        if editor.is_output(node.output[0]):
            continue
        alias[node.output[0]] = alias.get(node.input[0], node.input[0])
        editor.remove(node)
    editor.redirect_all(alias)


def _small_constants(editor: Editor) -> dict[str, NDArray[Any]]:
    """What sizes are computed from."""
    names = [tensor.name for tensor in editor.graph.initializer if math.prod(tensor.dims) <= SMALL]
    values = ((name, editor.value(name)) for name in names)
    return {name: value for name, value in values if value is not None}


def _fold(editor: Editor) -> bool:
    """Compute nodes that depend on constants and known sizes only; True when there were any."""
    evaluator = needed("onnx.reference", "onnx").ReferenceEvaluator
    shapes, constants = editor.shapes(), _small_constants(editor)
    measured = {node.output[0]: node.input[0] for node in editor.nodes("Shape")}
    found: dict[str, NDArray[Any]] = {}
    for node in list(editor.graph.node):
        if node.op_type == "Shape" or node.op_type not in FOLDABLE:
            continue
        feeds = {name: constants[name] for name in node.input if name in constants}
        shape = shapes.get(measured.get(node.input[0], ""))
        if node.op_type == "Gather" and shape is not None and node.input[1] in constants:
            index = constants[node.input[1]]
            sizes = [shape[i] for i in index.ravel()]
            if None in sizes:
                continue
            value = np.array(sizes, np.int64).reshape(index.shape)
        elif len(feeds) == len(set(node.input)):
            value = np.asarray(evaluator(node).run(None, feeds)[0])
        elif (
            node.op_type == "Slice"
            and shape is not None
            and None not in shape
            and all(name in constants for name in node.input[1:])
        ):
            feeds[node.input[0]] = np.array(shape, np.int64)
            value = np.asarray(evaluator(node).run(None, feeds)[0])
        else:
            continue
        found[node.output[0]] = constants[node.output[0]] = value
        editor.remove(node)
    for name, value in found.items():
        editor.set_constant(name, value)
    editor.drop_unread_nodes()
    return bool(found)


def _join_slices(editor: Editor, shapes: Shapes) -> None:
    """Replace slices that cut a tensor into consecutive parts by one Split."""
    constants = _small_constants(editor)
    groups: dict[tuple[str, int], list[tuple[int, int, Any]]] = {}
    for node in editor.nodes("Slice"):
        if all(name in constants for name in node.input[1:]):
            starts, ends, axes, *steps = (constants[name].ravel().tolist() for name in node.input[1:])
            shape = shapes.get(node.input[0])
            if shape is not None and len(axes) == 1 and (not steps or steps[0] == [1]):
                groups.setdefault((node.input[0], axes[0] % len(shape)), []).append((starts[0], ends[0], node))
    for (name, axis), cuts in groups.items():
        cuts.sort(key=lambda cut: cut[0])
        edges = [0, *(end for _, end, _ in cuts)]
        if len(cuts) < 2 or edges[:-1] != [start for start, _, _ in cuts] or edges[-1] != shapes[name][axis]:
            continue
        nodes = [node for _, _, node in cuts]
        sizes, split = f"{nodes[0].name}/sizes", f"{nodes[0].name}/Split"
        editor.set_constant(sizes, np.diff(edges).astype(np.int64))
        place = min(list(editor.graph.node).index(node) for node in nodes)
        for node in nodes:
            editor.remove(node)
        editor.insert(place, "Split", [name, sizes], [node.output[0] for node in nodes], split, axis=axis)


def _join_equal_constants(editor: Editor) -> None:
    """Keep equal constants once, and none that nothing uses."""
    first: dict[tuple[Any, ...], str] = {}
    alias: dict[str, str] = {}
    for tensor in editor.graph.initializer:
        value = editor.value(tensor.name)
        assert value is not None
        key = (str(value.dtype), value.shape, value.tobytes())
        alias[tensor.name] = first.setdefault(key, tensor.name)
    editor.redirect_all(alias)
    editor.drop_unread_constants()


def _known_same(shapes: Shapes, node: Any) -> bool:
    """Whether a node's result has the shape of its first input, as far as is known."""
    shape = shapes.get(node.input[0])
    return shape is not None and None not in shape and shapes.get(node.output[0]) == shape
