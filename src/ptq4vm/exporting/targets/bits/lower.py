"""From an ONNX graph of a binary network to the program and the tensors of a ``.bits`` file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import ExportError
from ptq4vm.exporting.graph.editor import Editor

Arrays = dict[str, NDArray[Any]]
_SAME = ("Add", "Mul", "Sub", "Div", "PRelu", "Relu", "Tanh", "Sigmoid", "Hardsigmoid", "Hardswish")
_ALIKE = ("Halve", "Double", "Mean", "Mask", "Sign")


def lower(editor: Editor) -> tuple[str, Arrays]:
    """The program of a graph as JSON, and its constants: signs of weights packed to bits, floats as they are.

    Tensors inside are called by numbers: a sixth of the file would be names.

    Args:
        editor: A graph of the target ``bits``, its sizes fixed.

    Raises:
        ExportError: An operation is none that the engine knows: the network is not binary, or has another ratio.
    """
    arrays: Arrays = {}
    _number(editor)
    nodes = [_node(editor, node, arrays) for node in editor.graph.node]
    read = {name for node in nodes for name in node["in"]}
    for name in read:
        value = editor.value(name)
        if value is not None:
            arrays[name] = _three(value.astype(np.float32))
    ports = {port.name: _port(port) for port in editor.graph.input}
    program = {
        "inputs": ports,
        "outputs": [output.name for output in editor.graph.output],
        "nodes": nodes,
    }
    return json.dumps(program, separators=(",", ":")), arrays


def _number(editor: Editor) -> None:
    ports = {port.name for port in (*editor.graph.input, *editor.graph.output)}
    names = dict.fromkeys(name for node in editor.graph.node for name in (*node.input, *node.output) if name)
    editor.rename_tensors({name: f"{number:x}" for number, name in enumerate(n for n in names if n not in ports)})


def _node(editor: Editor, node: Any, arrays: Arrays) -> dict[str, Any]:
    found = {"op": node.op_type, "in": [*node.input], "out": [*node.output]}
    attributes = editor.attributes(node)
    if node.op_type in _SAME:
        return found
    if node.op_type in _ALIKE:
        return {**found, **({"low": attributes["low"]} if node.op_type == "Sign" else {})}
    known: dict[str, Callable[[Editor, Any, dict[str, Any], Arrays], dict[str, Any]]] = {
        "BinaryConv": _binary,
        "ExactConv": _convolution,
        "Conv": _convolution,
        "Clip": _clip,
        "Concat": _concat,
        "Split": _split,
        "Slice": _crop,
        "Resize": _resize,
    }
    if node.op_type not in known:
        raise ExportError(
            f"target=bits cannot write {node.op_type}: give a run of `ptq4vm train` with a binary network, and leave "
            "downsample_ratio at 1 (matte brings frames of any size to the file's)"
        )
    return {**found, **known[node.op_type](editor, node, attributes, arrays)}


def _binary(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Weights as one bit each, in the order of their elements; the rest as floats."""
    name = node.input[1]
    weight = editor.value(name)
    assert weight is not None
    groups = int(attributes["groups"])
    if groups not in (1, weight.shape[0]) or (groups > 1 and weight.shape[1] != 1):
        raise ExportError(f"target=bits: {name} convolves {groups} groups; use 1, or one for each channel")
    arrays[f"{name}.bits"] = np.packbits(weight.ravel() > 0)
    kept = [node.input[0], node.input[2], *([node.input[3]] if attributes["has_bias"] else [])]
    geometry = {key: int(attributes[key]) for key in ("stride", "padding", "dilation", "groups")}
    return {"in": kept, "bits": f"{name}.bits", "shape": [int(size) for size in weight.shape], **geometry}


def _convolution(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """A float convolution with its weight and bias among the tensors."""
    weight = editor.value(node.input[1])
    assert weight is not None
    own = node.op_type == "ExactConv"
    stride = int(attributes["stride"]) if own else int(attributes["strides"][0])
    padding = int(attributes["padding"]) if own else int(attributes["pads"][0])
    plain = int(attributes.get("groups", attributes.get("group", 1))) == 1
    dilated = attributes.get("dilation", attributes.get("dilations", [1])) not in (1, [1, 1], [1])
    if not plain or dilated or (not own and (stride != 1 or weight.shape[2:] not in ((1, 1), (3, 3)))):
        raise ExportError(f"target=bits cannot write the float convolution {node.input[1]}: only plain ones")
    bias = editor.value(node.input[2]) if len(node.input) > 2 else None
    arrays[f"{node.input[1]}.w"] = weight.astype(np.float32)
    arrays[f"{node.input[1]}.b"] = np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32)
    geometry = {"stride": stride, "padding": padding, "shape": [int(size) for size in weight.shape]}
    return {"in": [node.input[0]], "weight": node.input[1], **geometry}


def _clip(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    low, high = (editor.value(name) for name in node.input[1:3])
    assert low is not None and high is not None
    return {"in": [node.input[0]], "low": float(low), "high": float(high)}


def _concat(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    if attributes["axis"] not in (1, -3):
        raise ExportError("target=bits joins channels only")
    return {}


def _split(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    sizes = editor.value(node.input[1])
    if sizes is None or attributes["axis"] not in (1, -3):
        raise ExportError("target=bits parts channels only")
    return {"in": [node.input[0]], "parts": [int(size) for size in sizes]}


def _crop(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """What is left of rows or columns after a size was rounded up."""
    starts, ends, axes, *steps = (editor.value(name) for name in node.input[1:])
    assert starts is not None and ends is not None and axes is not None
    if starts.any() or any(step is not None and (step != 1).any() for step in steps):
        raise ExportError("target=bits cuts pictures at their ends only")
    return {"in": [node.input[0]], "ends": dict(zip(axes.tolist(), ends.tolist(), strict=True))}


def _resize(editor: Editor, node: Any, attributes: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """A mask, enlarged by a whole factor."""
    scales = editor.value(node.input[2]) if len(node.input) > 2 else None
    if attributes["mode"] not in (b"nearest", "nearest") or scales is None or scales[-1] != int(scales[-1]):
        raise ExportError("target=bits enlarges masks only, by whole factors: leave downsample_ratio at 1")
    return {"in": [node.input[0]], "factor": int(scales[-1])}


def _three(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """A constant as ``(C, H, W)``: scalars and vectors have one row and one column."""
    shape = value.shape[1:] if value.ndim == 4 else value.shape
    return value.reshape(tuple(shape) + (1,) * (3 - len(shape)) if len(shape) != 2 else (1, *shape)).copy()


def _port(port: Any) -> list[int]:
    """Size of an input, which is of one frame."""
    return [int(dimension.dim_value) for dimension in port.type.tensor_type.shape.dim][1:]
