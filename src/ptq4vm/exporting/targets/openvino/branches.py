"""Convolutions of joined tensors with a scale for each of their parts: one convolution a part, added up.

OpenVINO's integer convolutions know one scale for what they read. Where a Concat is rounded on grids of several
scales, it rounds each part before it is joined, but all of them on one grid of its choice: parts with small scales are
rounded more coarsely than they were calibrated for (RVM's decoder at W8A8, random weights: up to 2.8% of a
convolution's signal). Each part with a convolution of its own keeps its scale, and all of them compute with integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.exporting.graph.editor import Editor, Grid


class _Part(NamedTuple):
    """Some channels of what a convolution reads: the float tensor, its place among them, and its grid."""

    name: str
    channels: slice
    grid: Grid


def convolve_parts_apart(editor: Editor) -> None:
    """Let convolutions read the parts of joined tensors one by one where these have scales of their own.

    Args:
        editor: Editor of a simplified graph, whose nodes are in order and stay so.
    """
    channels = {name: sizes[1] for name, sizes in editor.shapes().items() if len(sizes) > 1}
    for conv in editor.nodes("Conv"):
        parts = _parts(editor, conv, channels)
        if len({part.grid for part in parts}) > 1:
            _split(editor, conv, parts)
    editor.finish()


def _parts(editor: Editor, conv: Any, channels: Mapping[str, int | None]) -> Sequence[_Part]:
    """What a dense convolution with constant codes as its weight reads; empty where that is not joined and rounded."""
    source, weight = (editor.producer(name, "DequantizeLinear") for name in conv.input[:2])
    rounds = editor.producer(source.input[0], "QuantizeLinear") if source is not None else None
    joins = editor.producer(rounds.input[0], "Concat") if rounds is not None else None
    if joins is None or weight is None or not editor.is_constant(weight.input[0]):
        return []
    sizes = [channels.get(name) for name in joins.input]
    if editor.attributes(conv)["group"] != 1 or editor.attributes(joins)["axis"] != 1 or None in sizes:
        return []
    ends = list(accumulate((int(size or 0) for size in sizes), initial=0))
    scale, zero = (np.broadcast_to(values, ends[-1]) for values in editor.scales(source))
    places = [slice(*pair) for pair in pairwise(ends)]
    if any(len(np.unique(values[place])) > 1 for values in (scale, zero) for place in places):
        return []
    grids = [Grid(float(scale[place.start]), int(zero[place.start])) for place in places]
    return [_Part(*part) for part in zip(joins.input, places, grids, strict=True)]


def _split(editor: Editor, conv: Any, parts: Sequence[_Part]) -> None:
    weight = editor.producer(conv.input[1])
    codes = editor.value(weight.input[0])
    assert codes is not None
    stem, attributes = weight.input[0], editor.attributes(conv)
    total = ""
    for number, part in enumerate(parts):
        columns: NDArray[Any] = np.ascontiguousarray(codes[:, part.channels])
        inputs = [editor.constant(columns, stem), *weight.input[1:]]
        rows = editor.add("DequantizeLinear", inputs, name=weight.name, axis=0)
        values = editor.dequantize(editor.quantize(part.name, part.grid), part.grid)
        bias = list(conv.input[2:]) if number == 0 else []
        result = editor.add("Conv", [values, rows, *bias], **attributes)
        last = number == len(parts) - 1
        if last:
            editor.remove(conv)
        total = editor.add("Add", [total, result], *([conv.output[0], conv.name] if last else [])) if total else result
