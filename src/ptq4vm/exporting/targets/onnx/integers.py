"""Shaping an exported graph for ONNX Runtime, so that it runs as integers from one end to the other.

ONNX Runtime computes an operation with integers where codes go in and codes of one scale come out right behind it, and
where it has a kernel for that. What it has no kernel for is written here with operations for which it has one. The
graph stays one of standard ONNX operations, and computes the same, up to the rounding of a hard-swish's gate.
"""

from __future__ import annotations

import numpy as np

from ptq4vm.exporting.graph.editor import Editor, Grid
from ptq4vm.exporting.targets.onnx.channels import pad_channels
from ptq4vm.exporting.targets.onnx.swishes import TOP, multiply_hard_swishes

_ROWS_FIRST, _PLANES_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_BIAS_LIMIT = 2.0**30
_END = np.iinfo(np.int64).max  # of a Slice that goes on to the end


def shape_for_onnx_runtime(editor: Editor) -> None:
    """Rewrite a graph whose operations all end in codes (``stores=operations``), in place.

    Args:
        editor: Editor of a graph of fixed or dynamic size through which :func:`ptq4vm.exporting.graph.codes.move_codes`
            went.
    """
    _clip_relus(editor)
    _round_hard_sigmoids(editor)
    multiply_hard_swishes(editor)
    _look_up_tanhs(editor)
    _mix_states(editor)
    editor.finish()  # in order, so that shapes can be told
    _upsample_by_convolutions(editor)
    _multiply_heads(editor)
    editor.finish()
    pad_channels(editor)
    _integer_biases(editor)
    _join_along_rows(editor)
    editor.finish()


def _clip_relus(editor: Editor) -> None:
    """A ReLU between convolution and codes: nothing where 0 is code 0, else the codes are clipped."""
    for relu in editor.nodes("Relu"):
        quantizer = editor.only_reader(relu.output[0], "QuantizeLinear")
        grid = editor.grid(quantizer) if quantizer is not None else None
        if grid is None or editor.producer(relu.input[0], "Conv") is None:
            continue
        quantizer.input[0] = relu.input[0]
        editor.remove(relu)
        if grid.zero:
            codes = quantizer.output[0]
            clipped = editor.add("Clip", [codes, editor.constant(np.uint8(grid.zero))])
            editor.redirect(codes, clipped, but=clipped)


def _round_hard_sigmoids(editor: Editor) -> None:
    """A hard sigmoid between a convolution and codes of [0, 1]: the convolution's rounding clips to just that."""
    for node in editor.nodes("HardSigmoid"):
        conv = editor.producer(node.input[0], "Conv")
        quantizer = editor.only_reader(node.output[0], "QuantizeLinear")
        grid = editor.grid(quantizer) if quantizer is not None else None
        if conv is None or grid is None or not _covers_unit(grid) or editor.only_reader(conv.output[0]) is None:
            continue
        attributes = editor.attributes(node)
        slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        bias = editor.bias(conv)
        assert bias is not None
        conv.input[2] = editor.constant((bias + offset / slope).astype(np.float32))
        editor.rename(conv, f"{conv.output[0]}/shifted")  # it is no longer the layer's result
        codes = editor.quantize(conv.output[0], Grid(grid.scale / slope, 0))
        editor.redirect(quantizer.output[0], codes)
        editor.remove(quantizer)
        editor.remove(node)


def _covers_unit(grid: Grid) -> bool:
    return grid.zero == 0 and abs(grid.scale * TOP - 1) < 1e-5


def _look_up_tanhs(editor: Editor) -> None:
    """Hyperbolic tangent as ``2 sigmoid(2x) - 1``: there is a table for the sigmoid, and scales do the rest."""
    for node in editor.nodes("Tanh"):
        source = editor.producer(node.input[0], "DequantizeLinear")
        quantizer = editor.only_reader(node.output[0], "QuantizeLinear")
        grid = editor.grid(quantizer) if quantizer is not None else None
        own = editor.grid(source) if source is not None else None
        if own is None or grid is None or abs(grid.scale * grid.zero - 1) > 1e-5:
            continue
        twice = editor.dequantize(source.input[0], Grid(2 * own.scale, own.zero))
        codes = editor.quantize(editor.add("Sigmoid", [twice]), Grid(grid.scale / 2, 0))
        editor.redirect(quantizer.output[0], codes)
        editor.remove(quantizer)
        editor.remove(node)


def _mix_states(editor: Editor) -> None:
    """A recurrent state ``h + z (c - h)`` as ``(1 - z) h + z c``, both products rounded to the state's codes."""
    for total in editor.nodes("Add"):
        quantizer = editor.only_reader(total.output[0], "QuantizeLinear")
        step = editor.producer(total.input[1], "Mul")
        change = editor.producer(step.input[1], "Sub") if step is not None else None
        if quantizer is None or change is None or change.input[1] != total.input[0]:
            continue
        gate, candidate, state = step.input[0], change.input[0], total.input[0]
        sources = [editor.producer(name, "DequantizeLinear") for name in (gate, candidate, state)]
        grids = [editor.grid(source) if source is not None else None for source in [*sources, quantizer]]
        if any(grid is None for grid in grids) or not _covers_unit(grids[0]):  # type: ignore[arg-type]
            continue
        own = grids[-1]
        assert own is not None
        rest = editor.dequantize(sources[0].input[0], Grid(-1 / TOP, TOP))  # 1 - z, of the same codes
        for index, factors in enumerate(([rest, state], [gate, candidate])):
            product = editor.quantize(editor.add("Mul", factors), own)
            total.input[index] = editor.dequantize(product, own)


def _upsample_by_convolutions(editor: Editor) -> None:
    """Codes that are upsampled twice bilinearly: four depthwise convolutions with weights of sixteenths.

    Each gives the pixels of one of four places; they are rounded to the nearest code, where a Resize of codes would
    cut off. Two run as one, over a doubled picture, and their pixels lie side by side without being moved. No constant
    holds a size, so that the graph is the same for every size of frames. Floats that are upsampled (a matte brought
    back to its frame's size) stay with Resize, which is exact for them.
    """
    shapes, held = editor.known_shapes(), editor.code_tensors()
    for node in editor.nodes("Resize"):
        codes = node.input[0]
        attributes = editor.attributes(node)
        scales = editor.value(node.input[2]) if len(node.input) == 3 else None
        if (
            codes not in shapes
            or codes not in held
            or scales is None
            or scales.tolist() != [1, 1, 2, 2]
            or attributes["mode"] != b"linear"
            or attributes["coordinate_transformation_mode"] not in (b"half_pixel", b"pytorch_half_pixel")
        ):
            continue
        channels = shapes[codes][1]
        edges = editor.constant(np.array([0, 1, 1, 0, 0, 1, 1, 0], np.int64))
        padded = editor.add("Pad", [editor.add("Transpose", [codes], perm=_ROWS_FIRST), edges], mode="edge")
        beside = editor.add("Concat", [padded, padded], axis=3)
        doubled = editor.dequantize(editor.add("Transpose", [beside], perm=_PLANES_FIRST), Grid(1.0, 0))
        rows = [_upsampled_rows(editor, doubled, channels, below) for below in (0, 1)]
        pairs = editor.add("Squeeze", [editor.add("Concat", rows, axis=2), editor.constant(np.array([0], np.int64))])
        whole = editor.constant(np.array([1, -1, 0, channels], np.int64))  # (H, 2, 2 W, C) to (1, 2 H, 2 W, C)
        picture = editor.add("Reshape", [pairs, whole])
        editor.redirect(node.output[0], editor.add("Transpose", [picture], perm=_PLANES_FIRST))
        editor.remove(node)


def _upsampled_rows(editor: Editor, doubled: str, channels: int, below: int) -> str:
    """Every other row of the upsampled picture, ``(1, H, 1, 2 W, C)`` codes, from the padded picture beside itself."""
    taps = np.array([[1, 3, 0], [0, 3, 1]], np.int8)
    kernels = [np.outer(taps[below][below : below + 2], taps[right]) for right in (0, 1)]
    count = 2 * channels
    weight = np.repeat(np.stack(kernels)[:, None], channels, 0).astype(np.int8)
    grid = [editor.constant(np.full(count, 1 / 16, np.float32)), editor.constant(np.zeros(count, np.int8))]
    inputs = [
        doubled,
        editor.add("DequantizeLinear", [editor.constant(weight), *grid], axis=0),
        editor.constant(np.zeros(count, np.float32)),
    ]
    result = editor.add("Conv", inputs, kernel_shape=[2, 3], group=count)
    rows = editor.add("Transpose", [editor.quantize(result, Grid(1.0, 0))], perm=_ROWS_FIRST)
    first, last = (1, _END) if below else (0, -1)  # of one row more than the picture has
    ends = [editor.constant(np.array([end], np.int64)) for end in (first, last, 1)]
    cut = editor.add("Slice", [rows, *ends])
    return editor.add("Reshape", [cut, editor.constant(np.array([0, 0, 1, -1, channels], np.int64))])


def _multiply_heads(editor: Editor) -> None:
    """A 1x1 convolution from codes to float: a matrix product, for which there is a kernel of that kind."""
    for conv in editor.nodes("Conv"):
        source, weight = (editor.producer(name, "DequantizeLinear") for name in conv.input[:2])
        attributes = editor.attributes(conv)
        if source is None or weight is None or attributes["kernel_shape"] != [1, 1]:
            continue
        plain = attributes["group"] == 1 and set(attributes["strides"]) == {1}
        grid, codes = editor.grid(source), editor.value(weight.input[0])
        integer = any(node.op_type == "QuantizeLinear" for node in editor.readers(conv.output[0]))
        if integer or not plain or grid is None or codes is None or codes.dtype != np.int8:
            continue
        pixels = editor.dequantize(editor.add("Transpose", [source.input[0]], perm=_ROWS_FIRST), grid)
        matrix = editor.add(
            "DequantizeLinear",
            [editor.constant(np.ascontiguousarray(codes[:, :, 0, 0].T)), *weight.input[1:]],
            name=weight.name,
            axis=1,
        )
        planes = editor.add("Transpose", [editor.add("MatMul", [pixels, matrix])], perm=_PLANES_FIRST)
        bias = editor.bias(conv)
        assert bias is not None
        editor.remove(conv)
        editor.add("Add", [planes, editor.constant(bias.reshape(1, -1, 1, 1))], conv.output[0], conv.name)


def _join_along_rows(editor: Editor) -> None:
    """Join the channels of codes pixel by pixel, in the layout in which convolutions read and write them.

    Transpositions that meet are taken out by ONNX Runtime.
    """
    for node in editor.nodes("Concat"):
        reader = editor.only_reader(node.output[0])
        goes_on = reader is not None and reader.op_type in ("DequantizeLinear", "Transpose")
        if not goes_on or editor.attributes(node)["axis"] != 1:
            continue
        parts = [editor.add("Transpose", [name], perm=_ROWS_FIRST) for name in node.input]
        joined = editor.add("Concat", parts, axis=3)
        editor.redirect(node.output[0], editor.add("Transpose", [joined], perm=_PLANES_FIRST))
        editor.remove(node)


def _integer_biases(editor: Editor) -> None:
    """Biases as multiples of input scale times weight scale: a convolution with another one is not run as integers.

    With 8 bits on both sides the multiples are so small that nothing is lost.
    """
    for conv in editor.nodes("Conv"):
        source, weight = (editor.producer(name, "DequantizeLinear") for name in conv.input[:2])
        bias = editor.bias(conv)
        if source is None or weight is None or bias is None:
            continue
        grid, scales, codes = editor.grid(source), editor.value(weight.input[1]), editor.value(weight.input[0])
        if grid is None or scales is None or codes is None or codes.dtype != np.int8:
            continue
        step = np.float32(grid.scale) * scales.astype(np.float32)
        counts = np.rint(bias.astype(np.float64) / step)
        if float(np.abs(counts).max()) > _BIAS_LIMIT:
            continue
        conv.input[2] = editor.add(
            "DequantizeLinear",
            [
                editor.constant(counts.astype(np.int32)),
                editor.constant(step),
                editor.constant(np.zeros(step.shape, np.int32)),
            ],
            axis=0,
        )
