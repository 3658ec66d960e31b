"""Letting an ONNX graph move integer codes about, instead of going back to float for every operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.system.extras import needed

MOVES = ("Concat", "Split", "Slice", "Resize")
"""Operations that give codes for codes: a DequantizeLinear before them may as well come after them."""
_AXIS = 1
_STEM = "grid"
"""Of the names of new scales and zero points."""


def move_codes(editor: Editor, moves: Sequence[str] = MOVES) -> None:
    """Move the DequantizeLinear nodes of activations towards the convolutions, merge and remove until nothing changes.

    What nobody reads any more stays; see :func:`ptq4vm.exporting.graph.editor.drop_unread`.

    Args:
        editor: Editor of a simplified graph, which is changed.
        moves: Operations that may get codes, of :data:`MOVES`; an engine may round them otherwise than floats.
    """
    channels = {name: sizes[_AXIS] for name, sizes in editor.shapes().items() if len(sizes) > _AXIS}
    while _sink(editor, moves, channels) or _merge_division(editor) or _cancel(editor):
        pass


def multiply_apart(editor: Editor) -> None:
    """Let codes go back to float with scale 1 and multiply by the channels' scales then, but for what only Conv
    reads."""
    readers: dict[str, set[str]] = {}
    for node in editor.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    for place, node in reversed(list(enumerate(editor.graph.node))):
        if node.op_type != "DequantizeLinear" or editor.is_constant(node.input[0]):
            continue
        scale, zero = editor.scales(node)
        if scale.ndim == 0 or readers.get(node.output[0]) == {"Conv"}:
            continue
        name, bare = node.output[0], f"{node.output[0]}/bare"
        factor = editor.constant(np.asarray(scale, np.float32).reshape(1, -1, 1, 1), _STEM)
        editor.remove(node)
        editor.insert(place, "Mul", [bare, factor], [name], f"{name}/scale")
        _insert_dequantizer(editor, place, node.input[0], np.ones((), np.float32), zero.ravel()[0], bare)


def _dequantizer(editor: Editor, name: str) -> Any:
    """The node that turns an activation's codes into this tensor, if one does."""
    node = editor.producer(name, "DequantizeLinear")
    return None if node is None or editor.is_constant(node.input[0]) else node


def _sink(editor: Editor, moves: Sequence[str], channels: Mapping[str, int | None]) -> bool:
    for place, node in enumerate(editor.graph.node):
        if node.op_type not in moves:
            continue
        data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        sources = [_dequantizer(editor, name) for name in data]
        if any(source is None for source in sources) or not _fits(editor, sources):
            continue
        scales = _moved_scales(editor, node, sources, channels)
        if scales is None:
            continue
        for index, source in enumerate(sources):
            node.input[index] = source.input[0]
        zero = editor.scales(sources[0])[1].ravel()[0]
        for index, scale in enumerate(scales):
            name = node.output[index]
            editor.rename(node, f"{name}/codes", index)
            _insert_dequantizer(editor, place + 1, node.output[index], scale, zero, name)
        return True
    return False


def _fits(editor: Editor, sources: list[Any]) -> bool:
    """Whether all have one zero point."""
    return len({int(zero) for source in sources for zero in editor.scales(source)[1].ravel()}) == 1


def _moved_scales(
    editor: Editor, node: Any, sources: list[Any], channels: Mapping[str, int | None]
) -> list[NDArray[Any]] | None:
    """Scale of every output: one value, or one for each channel; ``None`` where they cannot be told."""
    scales = [editor.scales(source)[0] for source in sources]
    if node.op_type == "Concat" and len({scale.tobytes() for scale in scales}) > 1:
        counts = [channels.get(source.output[0]) for source in sources]
        scales = [_for_channels(scale, count) for scale, count in zip(scales, counts, strict=True)]
    if all(scale.ndim == 0 and scale == scales[0] for scale in scales):
        return [scales[0]] * len(node.output)
    if any(scale.ndim == 0 for scale in scales):
        return None
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if node.op_type == "Concat":
        return [np.concatenate(scales)] if axis == _AXIS else None
    if node.op_type == "Split":
        sizes = editor.value(node.input[1])
        assert sizes is not None
        return np.split(scales[0], np.cumsum(sizes.ravel())[:-1]) if axis == _AXIS else None
    return [scales[0]]


def _for_channels(scale: NDArray[Any], count: int | None) -> NDArray[Any]:
    """A tensor's scale for every channel, where their number is known."""
    return np.full(count, scale) if scale.ndim == 0 and count else scale


def _insert_dequantizer(editor: Editor, place: int, codes: str, scale: NDArray[Any], zero: Any, name: str) -> None:
    scale = np.asarray(scale, np.float32)
    if scale.ndim and bool((scale == scale[0]).all()):
        scale = scale[0].reshape(())
    grid = [editor.constant(value, _STEM) for value in (scale, np.full(scale.shape, zero, np.uint8))]
    editor.insert(place, "DequantizeLinear", [codes, *grid], [name], f"{name}/dequantize", axis=_AXIS)


def _merge_division(editor: Editor) -> bool:
    """A division by scales right after the way back to float: let that way have the quotients."""
    for place, node in enumerate(editor.graph.node):
        if node.op_type != "Div":
            continue
        source, divisor = _dequantizer(editor, node.input[0]), editor.value(node.input[1])
        if source is None or divisor is None or divisor.ndim not in (0, 3, 4):
            continue
        scale, zero = editor.scales(source)
        quotient = (scale / divisor.ravel() if divisor.ndim else scale / divisor).astype(np.float32)
        editor.remove(node)
        _insert_dequantizer(editor, place, source.input[0], quotient, zero.ravel()[0], node.output[0])
        return True
    return False


def _cancel(editor: Editor) -> bool:
    """Codes to float and back to the same codes: leave both out."""
    for node in editor.nodes("QuantizeLinear"):
        source = _dequantizer(editor, node.input[0])
        if source is None or editor.is_output(node.output[0]) or not _same_grid(editor, node, source):
            continue
        editor.remove(node)
        editor.redirect(node.output[0], source.input[0])
        return True
    return False


def _same_grid(editor: Editor, one: Any, other: Any) -> bool:
    """Whether two nodes have one scale and zero point, written once or once for every channel."""
    pairs = zip(editor.scales(one), editor.scales(other), strict=True)
    return all(bool(np.all(a == b)) and (a.size == b.size or min(a.size, b.size) == 1) for a, b in pairs)


def states_as_codes(editor: Editor, names: Sequence[str]) -> dict[str, int]:
    """Let recurrent states enter and leave a graph as the codes that it stores them in.

    Args:
        editor: Editor of a graph through which :func:`move_codes` went.
        names: Names of the state inputs (``r1i``, ...); each leaves under the name with ``o`` at the end.

    Returns:
        The code of 0 of every state; empty, and the graph as it was, where a state is not stored as codes.
    """
    ends = []
    for name in names:
        readers, writer = editor.readers(name), editor.producer(f"{name[:-1]}o", "DequantizeLinear")
        if writer is None or [node.op_type for node in readers] != ["QuantizeLinear"]:
            return {}
        if not _same_grid(editor, readers[0], writer):
            return {}
        ends.append((name, readers[0], writer))
    zeros = {name: int(editor.scales(reader)[1].ravel()[0]) for name, reader, _ in ends}
    for name, reader, writer in ends:
        editor.redirect(reader.output[0], name)
        editor.remove(reader)
        out, codes = f"{name[:-1]}o", writer.input[0]
        if editor.readers(out):  # arithmetic goes on with the float state
            editor.rename(writer, f"{out}/float")
            editor.redirect(out, writer.output[0])
        else:
            editor.remove(writer)
        maker = editor.producer(codes)
        editor.rename(maker, out, list(maker.output).index(codes))
        editor.redirect(codes, out)
    kind = needed("onnx", "onnx").TensorProto.UINT8
    for value in [*editor.graph.input, *editor.graph.output]:
        if value.name in zeros or f"{value.name[:-1]}i" in zeros:
            value.type.tensor_type.elem_type = kind
    return zeros
