"""What TensorRT's documentation asks of a graph with explicit quantization, a check for each rule.

A check takes an :class:`Editor` and gives what breaks its rule, a name each. Its docstring begins with the title of the
page or file that the rule is from. Two are NVIDIA's pages "Working with Quantized Types" and its section "Explicit
Quantization" (docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html and
.../quantized-types-explicit-quantization.html), one is the parser's list "Supported ONNX Operators" (onnx-tensorrt,
docs/operators.md, of TensorRT 10.15), one is "IOptimizationProfile" in the reference of the Python API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ptq4vm.errors import ExportError
from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.targets.tensorrt.shaping import MOVES, RESAMPLING, ROUNDING, WEIGHTED

Check = Callable[[Editor], list[str]]
"""Gives the names of the nodes, tensors or keys that break a rule."""

OPSETS = range(9, 21)
"""Opsets that the parser of every TensorRT 10 takes; 10.0 ends there, and later ones go further."""
INT8 = 3  # in ONNX's list of types
BENDS = ("Relu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Clip", "LeakyRelu", "BatchNormalization")
"""What TensorRT joins to the layer before it."""
KNOWN = (
    *WEIGHTED, *ROUNDING, *BENDS,
    "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Sqrt", "Abs", "Min", "Max", "Concat", "Split", "Slice", "Resize", "Pad",
    "AveragePool", "MaxPool", "GlobalAveragePool", "ReduceMean", "Transpose", "Reshape", "Shape", "Gather", "Cast",
    "Unsqueeze", "Squeeze", "Constant", "ConstantOfShape", "Floor", "Ceil", "Identity", "Expand", "Softmax", "Equal",
    "Where", "Range", "Flatten", "PRelu", "Elu", "Erf", "Gelu", "Exp",
)  # fmt: skip
"""Operations of the parser's list that networks here may have; none of the quantized ones is in that list."""
WHOLE = (*RESAMPLING, "Concat")
"""Layers without weights that TensorRT runs with integers as a whole, or not at all."""


def signed_around_zero(editor: Editor) -> list[str]:
    """Supported ONNX Operators, QuantizeLinear and DequantizeLinear: the zero point must be 0; and Working with
    Quantized Types: the scheme is symmetric, on signed 8-bit integers."""
    return [node.name for node in _rounding(editor) if _breaks_zero(editor, node)]


def scales_of_tensors_and_channels(editor: Editor) -> list[str]:
    """Explicit Quantization, Q/DQ Layer-Placement Recommendations: one scale for a tensor of activations, one for each
    channel of weights; all of them positive."""
    found = []
    for node in _rounding(editor):
        scale, weight = editor.value(node.input[1]), editor.value(node.input[0])
        if scale is None or not bool(np.isfinite(scale).all()) or not bool((scale > 0).all()):
            found.append(node.name)
        elif weight is None:
            found += [node.name] if scale.size != 1 else []
        elif scale.shape not in ((), (weight.shape[0],)) or (scale.ndim and _axis(editor, node) != 0):
            found.append(node.name)
    return found


def all_inputs_of_layers(editor: Editor) -> list[str]:
    """Explicit Quantization, Q/DQ Layer-Placement Recommendations: quantize all inputs of weighted operations."""
    return [
        node.name
        for node in _layers(editor)
        if any(editor.producer(name, "DequantizeLinear") is None for name in node.input[:2])
    ]


def weights_behind_one_node(editor: Editor) -> list[str]:
    """Explicit Quantization, Quantized Weights: what is quantized before needs an IDequantizeLayer between it and the
    layer, on codes of 8 bits (4 bits are for blocks of weights alone)."""
    found = []
    for node in _layers(editor):
        source = editor.producer(node.input[1], "DequantizeLinear")
        codes = None if source is None else editor.value(source.input[0])
        if codes is None or codes.dtype != np.int8:
            found.append(node.name)
    return found


def biases_in_float(editor: Editor) -> list[str]:
    """Supported ONNX Operators, DequantizeLinear: of INT8, FP8, FP4 and INT4, so that a bias of 32-bit integers cannot
    be read; it stays a float."""
    found = []
    for node in _layers(editor):
        bias = editor.bias(node)
        if len(node.input) == 3 and (bias is None or bias.dtype != np.float32):
            found.append(node.name)
    return found


def nodes_in_pairs(editor: Editor) -> list[str]:
    """Explicit Quantization, ONNX Support: a fake quantization is a pair of QuantizeLinear and DequantizeLinear; and
    Supported ONNX Operators: no other operation takes INT8."""
    found = []
    for node in editor.nodes("QuantizeLinear"):
        readers = editor.readers(node.output[0])
        same = all(each.op_type == "DequantizeLinear" and _same_grid(editor, node, each) for each in readers)
        if not readers or not same or editor.is_output(node.output[0]):
            found.append(node.name)
    return found


def nothing_before_activations(editor: Editor) -> list[str]:
    """Explicit Quantization, Q/DQ Layer-Placement Recommendations: do not simulate the fusions of batch normalization
    and ReLU, that is, put nothing between a layer and its normalization or activation function."""
    found = []
    for node in editor.graph.node:
        rounded = editor.producer(node.input[0], "DequantizeLinear") if node.op_type in BENDS else None
        codes = None if rounded is None else editor.producer(rounded.input[0], "QuantizeLinear")
        if codes is not None and _is_layer(editor.producer(codes.input[0])):
            found.append(node.name)
    return found


def residuals_quantized(editor: Editor) -> list[str]:
    """Explicit Quantization, Q/DQ Layer-Placement Recommendations: quantize the residual input in skip connections, so
    that the layer, the sum and the rounding behind it become one; what the layer gives is not rounded before."""
    found = []
    for node in editor.nodes("Add"):
        makers = [editor.producer(name) for name in node.input]
        if not any(_is_layer(each) for each in makers) or any(editor.is_constant(name) for name in node.input):
            continue
        others = [each for each in makers if not _is_layer(each)]
        rounded = all(each is not None and each.op_type == "DequantizeLinear" for each in others) and bool(others)
        if not rounded or not _all_rounded(editor, node.output[0]):
            found.append(node.name)
    return found


def integers_to_integers(editor: Editor) -> list[str]:
    """Explicit Quantization, Q/DQ Layer-Placement Recommendations: a layer without weights that reads INT8 must give
    INT8, so quantize both its inputs and its outputs."""
    found = []
    for node in editor.graph.node:
        names = list(node.input) if node.op_type == "Concat" else list(node.input[:1])
        if node.op_type in WHOLE and all(_of_codes(editor, name) for name in names):
            found += [] if _all_rounded(editor, node.output[0]) else [node.name]
    return found


def operations_of_the_parser(editor: Editor) -> list[str]:
    """Supported ONNX Operators: opset 9 and later, and none of QLinearConv, ConvInteger and their like."""
    opsets = [f"opset {each.version}" for each in editor.model.opset_import if each.version not in OPSETS]
    domains = [f"domain {each.domain}" for each in editor.model.opset_import if each.domain]
    return [*opsets, *domains, *(node.op_type for node in editor.graph.node if node.op_type not in KNOWN)]


def profile_of_open_sizes(editor: Editor) -> list[str]:
    """IOptimizationProfile: a network with inputs of open size needs a profile of their smallest, usual and largest
    shapes, which the file's metadata say."""
    said = {entry.key: entry.value for entry in editor.model.metadata_props}
    opened = [port.name for port in editor.graph.input if _is_open(port)]
    keys = ("profile_min", "profile_opt", "profile_max") if opened else ()
    return [key for key in keys if any(f"{name}:" not in said.get(key, "") for name in opened)]


RULES: tuple[Check, ...] = (
    signed_around_zero, scales_of_tensors_and_channels, all_inputs_of_layers, weights_behind_one_node, biases_in_float,
    nodes_in_pairs, nothing_before_activations, residuals_quantized, integers_to_integers, operations_of_the_parser,
    profile_of_open_sizes,
)  # fmt: skip
"""All rules, those first that others build on."""
FOR_ALL: tuple[Check, ...] = (operations_of_the_parser, profile_of_open_sizes)
"""Rules that hold of float networks too."""


def check_rules(editor: Editor, rules: tuple[Check, ...] = RULES) -> None:
    """Refuse a graph that breaks a rule.

    Args:
        editor: Editor of the whole graph, with its metadata.
        rules: Which rules to check.

    Raises:
        ExportError: One is broken; the line names it and what breaks it first.
    """
    for rule in rules:
        found = rule(editor)
        if found:
            what = f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}"
            raise ExportError(
                f"target=tensorrt: the graph breaks the rule {rule.__name__} ({what}): "
                "quantize with bits=w8a8 +target=tensorrt"
            )


def _rounding(editor: Editor) -> Iterator[Any]:
    for kind in ROUNDING:
        yield from editor.nodes(kind)


def _layers(editor: Editor) -> list[Any]:
    """Convolutions and products with a weight: of a guided filter's, which has none of codes, nothing is asked."""
    return [node for node in editor.graph.node if _is_layer(node) and not _in_float(editor, node)]


def _is_layer(node: Any) -> bool:
    return node is not None and node.op_type in WEIGHTED


def _in_float(editor: Editor, node: Any) -> bool:
    """Whether a layer is float by choice: neither its input nor its weight is rounded."""
    return all(editor.producer(name, "DequantizeLinear") is None for name in node.input[:2])


def _breaks_zero(editor: Editor, node: Any) -> bool:
    zero = editor.value(node.input[2]) if len(node.input) > 2 else None
    return zero is None or zero.dtype != np.int8 or bool(zero.any())


def _axis(editor: Editor, node: Any) -> int:
    return int(editor.attributes(node).get("axis", 1))


def _same_grid(editor: Editor, one: Any, other: Any) -> bool:
    pairs = zip(one.input[1:], other.input[1:], strict=True)
    return all(np.array_equal(editor.value(a), editor.value(b)) for a, b in pairs)  # type: ignore[arg-type]


def _all_rounded(editor: Editor, name: str) -> bool:
    """Whether a tensor is only read by what makes codes of it, curved by a function or cut on the way or not."""
    readers = editor.readers(name)
    return bool(readers) and all(
        each.op_type == "QuantizeLinear"
        or (each.op_type in (*BENDS, "Slice", "Split") and all(_all_rounded(editor, part) for part in each.output))
        for each in readers
    )


def _of_codes(editor: Editor, name: str) -> bool:
    """Whether a tensor comes from codes, moved about or not."""
    node = editor.producer(name)
    if node is None or node.op_type == "DequantizeLinear":
        return node is not None
    names = list(node.input) if node.op_type == "Concat" else list(node.input[:1])
    return node.op_type in MOVES and all(_of_codes(editor, each) for each in names)


def _is_open(port: Any) -> bool:
    return any(not size.HasField("dim_value") for size in port.type.tensor_type.shape.dim)
