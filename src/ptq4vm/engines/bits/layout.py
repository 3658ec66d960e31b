"""How constants and tensors of a ``.bits`` program lie in memory. Importing this needs Numba (the extra ``fast``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.bits.tiles import ACROSS

Floats = NDArray[np.float32]
APART = 80
"""Floats between channels: at distances of a power of two all of them would want the same places of the cache."""
MARGIN = 16
"""Columns before the first one, where a convolution reads beyond a tensor's edge."""


def edges(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How wide an edge packed signs need, by the convolutions that read them."""
    found: dict[str, int] = {}
    for node in nodes:
        if node["op"] == "BinaryConv":
            found[node["in"][0]] = max(found.get(node["in"][0], 0), node["padding"])
    return found


def strides(nodes: Sequence[Mapping[str, Any]]) -> dict[str, set[int]]:
    """With which strides packed signs are read."""
    found: dict[str, set[int]] = {}
    for node in nodes:
        if node["op"] == "BinaryConv":
            found.setdefault(node["in"][0], set()).add(node["stride"])
    return found


def rounded(count: int, step: int) -> int:
    """The multiple of ``step`` that has room for ``count``."""
    return -(-count // step) * step


def space(size: Sequence[int], edge: int = 0) -> tuple[int, int]:
    """Channels, and floats of a channel, that a tensor takes; see :func:`shaped`."""
    channels, height, width = size
    row = rounded(width, ACROSS) + (2 * MARGIN if edge else 0)
    return rounded(channels, 8), (height + 2 * edge) * row + APART


def shaped(flat: Floats, size: Sequence[int], edge: int = 0) -> Floats:
    """A tensor ``(C, H, W)`` whose rows have room for whole tiles, with room for channels of whole tiles.

    Args:
        flat: The memory that is used, of the shape that :func:`space` says.
        size: Channels, rows and columns.
        edge: Rows and columns around, which are read with it.
    """
    channels, height, width = size
    rows, row, before = height + 2 * edge, rounded(width, ACROSS) + (2 * MARGIN if edge else 0), MARGIN if edge else 0
    whole = flat[:, : rows * row].reshape(-1, rows, row)
    return whole[:channels, edge : edge + height, before : before + width]


def room(size: Sequence[int], edge: int = 0) -> Floats:
    """A tensor of zeros, in memory of its own; see :func:`shaped`."""
    return shaped(np.zeros(space(size, edge), np.float32), size, edge)


def with_edge(place: Floats, edge: int) -> Floats:
    """A tensor from :func:`room` together with the zeros around it, from its first row and column on."""
    row, rows, flat = place.strides[1] // 4, place.shape[1] + 2 * edge, place.base
    assert isinstance(flat, np.ndarray)
    return flat[:, : rows * row].reshape(-1, rows, row)[: len(place), :, MARGIN - edge :]


def columns(width: int, edge: int, stride: int) -> int:
    """Columns of one phase of a padded row that is read with a stride, with room for whole tiles."""
    return rounded(width, ACROSS) // stride + 2 * edge + 2 * ACROSS


def offsets(
    planes: int, far: int, down: int, column: int, taps: int, geometry: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Bytes from where an output's first tap would be in the first plane to everything that it reads.

    Args:
        planes: How many planes, or channels, are read.
        far: How far they are apart.
        down: How far rows are apart.
        column: How far the phases of a row are apart.
        taps: Taps of a side.
        geometry: Stride, dilation, and how much wider than the convolution's the edge is.

    Returns:
        ``(planes * taps * taps,)``, planes first.
    """
    stride, dilation, spare = geometry
    along = np.arange(taps) * dilation + spare
    reach = along[:, None] * down + (along % stride * column + along // stride * 4)
    return (np.arange(planes)[:, None] * far + reach.reshape(-1)).reshape(-1).astype(np.int64)


class Signs(NamedTuple):
    """Signs packed into words, 32 to one.

    Attributes:
        planes: The words; see :mod:`~ptq4vm.engines.bits.kernels`.
        edge: Rows and columns around.
        stride: How far the columns are apart that lie side by side.
        low: What a cleared bit stands for: -1, or 0.
        size: Channels, rows and columns.
    """

    planes: NDArray[np.uint32]
    edge: int
    stride: int
    low: int
    size: tuple[int, ...]


def pack_channels(signs: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Bits ``(O, C, taps)`` as words ``(O, ceil(C / 32), taps)``, channel ``c`` in bit ``c % 32``."""
    outputs, channels, taps = signs.shape
    padded = np.zeros((outputs, rounded(channels, 32), taps), np.uint32)
    padded[:, :channels] = signs
    weights = np.uint32(1) << np.arange(32, dtype=np.uint32)
    return np.bitwise_or.reduce(padded.reshape(outputs, -1, 32, taps) * weights[:, None], 2)


def tiled(weights: NDArray[Any], outputs: int) -> NDArray[Any]:
    """Weights ``(O, steps)`` as ``(tiles, steps, outputs)``, the missing ones 0."""
    whole = np.zeros((rounded(len(weights), outputs), weights.shape[1]), weights.dtype)
    whole[: len(weights)] = weights
    return np.ascontiguousarray(whole.reshape(-1, outputs, weights.shape[1]).transpose(0, 2, 1))


def filled(values: Iterable[Any], value: float = 0.0) -> Floats:
    """A value for each output, with room for whole tiles."""
    given = np.asarray(values, np.float32).reshape(-1)
    whole = np.full(rounded(len(given), 8), value, np.float32)
    whole[: len(given)] = given
    return whole


def bases(
    signs: NDArray[np.uint8], low: int, size: tuple[int, ...], out: tuple[int, ...], geometry: tuple[int, int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """From what twice an output's differing bits are to be taken, so that the sum of its signs is left.

    Where taps lie beyond the picture, cleared bits count as -1 in the differing ones, and not at all in the sum.

    Args:
        signs: Bits of the weights, ``(O, C, taps * taps)``.
        low: What a cleared bit of the input stands for; where it is 0, the sum is twice as large as it should be.
        size: Rows and columns of the input.
        out: Those of the output.
        geometry: Stride, dilation and edge.

    Returns:
        ``(classes, O, columns)`` and the class of every row; one class and one column where all are the same.
    """
    outputs, channels, taps = signs.shape
    sums = 2 * signs.sum(1, dtype=np.int64) - channels
    stride, dilation, edge = geometry
    if low == 0 or edge == 0:
        same = channels * taps + (sums.sum(1) if low == 0 else np.zeros(outputs, np.int64))
        return same.astype(np.int32).reshape(1, outputs, 1), np.zeros(out[0], np.int64)
    side = int(np.sqrt(taps))
    rows, columns = (
        np.add.outer(np.arange(count) * stride - edge, np.arange(side) * dilation) for count in (out[0], out[1])
    )
    within = [
        ((each >= 0) & (each < limit)).astype(np.int64) for each, limit in zip((rows, columns), size, strict=True)
    ]
    kinds, classes = np.unique(within[0], axis=0, return_inverse=True)
    inside = np.einsum("kd,oda,xa->kox", kinds, sums.reshape(outputs, side, side), within[1])
    return (channels * taps + sums.sum(1)[:, None] - inside).astype(np.int32), classes.reshape(-1).astype(np.int64)


def three(value: NDArray[Any]) -> Floats:
    """A constant as ``(C, H, W)``, in memory of its own."""
    return np.array(value, np.float32).reshape(value.shape if value.ndim == 3 else (-1, 1, 1))
