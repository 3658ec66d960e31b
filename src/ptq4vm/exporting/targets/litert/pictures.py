"""Operations on whole pictures: means, pooling, joining, parting, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptq4vm.errors import ExportError
from ptq4vm.exporting.targets.litert.convolution import SAME, VALID, geometry, pad
from ptq4vm.exporting.targets.litert.rounding import cut_off, rounding
from ptq4vm.exporting.targets.litert.values import TOP, Values

_PARTS = 16
"""Into how many equal parts doubling a picture's size divides a code."""


def refuse(node: Any, what: str) -> ExportError:
    """The error for a node that there is no way of writing."""
    return ExportError(f"target=litert: {node.op_type} ({node.name}) {what} cannot be written: use another target")


def mean(values: Values, node: Any) -> None:
    """Write a mean over pixels or channels."""
    attributes = values.editor.attributes(node)
    axes = (2, 3)
    if node.op_type == "ReduceMean":
        given = values.editor.value(node.input[1]) if len(node.input) > 1 else None
        if given is None or not attributes.get("keepdims", 1):
            raise refuse(node, "without axes of its own")
        axes = tuple(given.ravel().tolist())
    places = values.sizes(*sorted(values.axis(axis) for axis in axes))
    found, source = rounding(values.editor, node.output[0]), values.dequantized.get(node.input[0])
    if found is None or source is None or source[1].size > 1 or found.scale.size > 1:
        x, made = values.floats(node.input[0]), values.new_floats(values.shape(node.output[0]), node.output[0])
    else:
        # bounds are those of the codes themselves: a mean lies between them
        x = values.view(source[0], float(source[1].ravel()[0]))
        made = values.new_codes(f"{found.codes}:uncut", found.label, found.zero, TOP, values.shape(found.codes))
    values.model.operation("MEAN", [x, places], [made], 2, keepDims=True)
    if values.model.tensors[made].kind == "int8":
        assert found is not None
        values.taken.update(each.output[0] for each in found.nodes)
        cut_off(values, f"{found.codes}:uncut", found)


def pool(values: Values, node: Any) -> None:
    """Write an AveragePool or MaxPool node."""
    attributes = values.editor.attributes(node)
    way = geometry(attributes, attributes["kernel_shape"])
    x, size = values.floats(node.input[0]), values.shape(node.output[0])
    within = values.model.tensors[x].shape[1:3]
    mean = node.op_type == "AveragePool"
    padding = way._replace(pads=(0, 0, 0, 0)).padding(within, size[1:3])  # type: ignore[arg-type]
    if any(way.pads):
        if mean:
            raise refuse(node, "with padding")
        x, padding = pad(values, x, way.pads, lowest=True), VALID
    elif padding != VALID:  # what lies beyond the edge does not count, as with ceil_mode
        padding = SAME if not attributes.get("count_include_pad", 0) or not mean else None
    if padding is None or set(way.dilations) != {1}:
        raise refuse(node, "of this form")
    made = values.new_floats(size, node.output[0])
    kind = "AVERAGE_POOL_2D" if mean else "MAX_POOL_2D"
    options = {"padding": padding, "strideH": way.strides[0], "strideW": way.strides[1]}
    values.model.operation(kind, [x], [made], filterHeight=way.kernel[0], filterWidth=way.kernel[1], **options)


def concat(values: Values, node: Any) -> None:
    """Write a Concat node."""
    axis = values.axis(values.editor.attributes(node)["axis"])
    if all(name in values.codes for name in node.input):
        parts = [values.codes[name] for name in node.input]
        largest = max(parts, key=lambda part: int(np.prod(part.shape)))
        scale = largest.usual[1]
        inputs = [values.view(name, scale) for name in node.input]
        made = values.new_codes(node.output[0], scale, parts[0].zero, max(part.top for part in parts))
    else:
        inputs = [values.floats(name) for name in node.input]
        made = values.new_floats(values.shape(node.output[0]), node.output[0])
    values.model.operation("CONCATENATION", inputs, [made], 2, axis=axis)


def _parts(values: Values, x: str, outputs: list[str]) -> tuple[int, list[int]]:
    """The tensor that parts are taken of, and new ones for the parts, codes of codes."""
    if x not in values.codes:
        return values.floats(x), [values.new_floats(values.shape(name), name) for name in outputs]
    codes = values.codes[x]
    number, scale = codes.usual
    return number, [values.new_codes(name, scale, codes.zero, codes.top) for name in outputs]


def split(values: Values, node: Any) -> None:
    """Write a Split node."""
    axis = values.axis(values.editor.attributes(node).get("axis", 0))
    x, parts = _parts(values, node.input[0], list(node.output))
    sizes = [values.model.tensors[part].shape[axis] for part in parts]
    if len(set(sizes)) == 1:
        values.model.operation("SPLIT", [values.constant(np.array(axis, np.int32)), x], parts, 2, numSplits=len(parts))
        return
    whole = values.model.tensors[x].shape
    begins = np.cumsum([0, *sizes[:-1]])
    for begin, part in zip(begins, parts, strict=True):
        first = [0] * len(whole)
        first[axis] = int(begin)
        size = values.model.tensors[part].shape
        values.model.operation("SLICE", [x, values.sizes(*first), values.sizes(*size)], [part], 2)


def slice_(values: Values, node: Any) -> None:
    """Write a Slice node."""
    constants = [values.editor.value(name) for name in node.input[1:]]
    if len(constants) < 3 or any(value is None for value in constants):
        raise refuse(node, "by what is computed")
    starts, _, axes, *steps = (value.ravel().tolist() for value in constants if value is not None)
    if steps and set(steps[0]) != {1}:
        raise refuse(node, "with steps")
    x, (made,) = _parts(values, node.input[0], [node.output[0]])
    whole, first = values.model.tensors[x].shape, [0] * 4
    for start, axis in zip(starts, axes, strict=True):
        place = values.axis(axis)
        first[place] = int(start) if start >= 0 else whole[place] + int(start)
    size = values.model.tensors[made].shape
    values.model.operation("SLICE", [x, values.sizes(*first), values.sizes(*size)], [made], 2)


def resize(values: Values, node: Any) -> None:
    """Write a Resize node."""
    attributes = values.editor.attributes(node)
    mode, way = attributes["mode"], attributes.get("coordinate_transformation_mode", b"half_pixel")
    whole = values.shape(node.output[0])
    size, within = whole[1:3], values.shape(node.input[0])[1:3]
    scales = values.editor.value(node.input[2]) if len(node.input) == 3 else None
    if scales is not None and any(abs(a * s - b) > 1e-3 for a, s, b in zip(within, scales[2:], size, strict=True)):
        height, width = within
        raise ExportError(
            f"target=litert: {width}x{height} times {float(scales[2]):g} is no whole size: use another size or ratio"
        )
    linear = mode == b"linear" and way in (b"half_pixel", b"pytorch_half_pixel", b"align_corners")
    nearest = mode == b"nearest" and way == b"asymmetric" and attributes.get("nearest_mode") == b"floor"
    if not linear and not nearest:
        raise refuse(node, f"by {mode.decode()} with {way.decode()}")
    kind = "RESIZE_BILINEAR" if linear else "RESIZE_NEAREST_NEIGHBOR"
    options = {"halfPixelCenters": linear and way != b"align_corners", "alignCorners": way == b"align_corners"}
    codes = values.codes.get(node.input[0])
    if linear and codes is not None and (codes.top + 1) * _PARTS <= TOP + 1:
        x = _finer(values, node.input[0])
        between = f"{node.output[0]}:finer"
        made = values.new_codes(between, 1 / _PARTS, codes.zero * _PARTS, TOP, whole)
        values.model.operation(kind, [x, values.sizes(*size)], [made], 3, **options)
        # by way of floats, which round to the even neighbour
        floats = values.floats_by_scale(between, 1 / _PARTS)
        values.quantize(floats, node.output[0], np.ones(1, np.float32), codes.zero, codes.top)
        return
    x, (made,) = _parts(values, node.input[0], [node.output[0]])
    values.model.operation(kind, [x, values.sizes(*size)], [made], 3, **options)


def _finer(values: Values, name: str) -> int:
    """Few codes sixteen times as far apart, so that what lies between two of them is a whole number."""
    codes = values.codes[name]
    made = values.new_codes(f"{name}:finer", 1 / _PARTS, codes.zero * _PARTS, TOP, codes.shape)
    values.model.operation("QUANTIZE", [values.view(name, 1.0)], [made])
    return made


def depth_to_space(values: Values, node: Any) -> None:
    """Write a DepthToSpace node."""
    attributes, size = values.editor.attributes(node), values.shape(node.output[0])
    if attributes.get("mode", b"DCR") != b"DCR" and size[3] > 1:
        raise refuse(node, "in order CRD")
    made = values.new_floats(size, node.output[0])
    values.model.operation("DEPTH_TO_SPACE", [values.floats(node.input[0])], [made], blockSize=attributes["blocksize"])
