"""Loops of binary convolutions, compiled by Numba: signs packed 64 to a word, products counted by XOR and popcount.

Importing this needs Numba (the extra ``fast``). LLVM makes of :func:`popcount` what the CPU has: VPOPCNTQ for several
words at once, shuffles of nibbles elsewhere. Packed signs are planes ``(K, H + 2p, W + 2p)`` uint64, channel ``c`` in
bit ``c % 64`` of plane ``c // 64``, the edge of ``p`` cleared. All write rows ``start:stop`` of their result, so that
threads share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ptq4vm.engines.rowkernels import HALF, ZERO, chain, exactly, runs

BLOCK = 512
"""Words that a loop over packed signs should have at least, where rows are short."""


def _popcount(typing: Any, word: Any) -> Any:
    """Set bits of a word, uint64 to uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)]), args)

    return types.uint64(types.uint64), build


popcount: Any = intrinsic(_popcount)


@exactly
def pack(source: Any, shift: Any, threshold: Any, planes: Any, at: int, edge: int, start: int, stop: int) -> None:
    """Set the bits of channels ``at, at + 1, ...`` where ``source + shift`` is at least ``threshold``.

    The first source (``at`` 0) clears the rows before.
    """
    width = source.shape[2]
    for y in range(start, stop):
        if at == 0:
            for k in range(planes.shape[0]):
                planes[k, y + edge, :] = np.uint64(0)
        for c in range(source.shape[0]):
            line, word = source[c, y], planes[(at + c) // 64, y + edge, edge : edge + width]
            moved, bit = shift[(at + c) % shift.shape[0]], np.uint64(1) << np.uint64((at + c) % 64)
            for x in range(width):
                word[x] |= bit if line[x] + moved >= threshold else np.uint64(0)


@exactly
def _count(planes: Any, words: Any, o: int, y: int, geometry: Any, total: Any, left: int, right: int) -> None:
    """Add the differing bits of output ``o`` at row ``y``, columns ``left:right``, to ``total`` (uint64)."""
    taps, stride, dilation, spare = geometry[0], geometry[1], geometry[2], geometry[6]
    for k in range(planes.shape[0]):
        for down in range(taps):
            line = planes[k, y * stride + down * dilation + spare]
            for across in range(taps):
                word, first = words[o, k, down * taps + across], across * dilation + spare
                if stride == 1:
                    for x in range(left, right):
                        total[x] += popcount(line[x + first] ^ word)
                else:
                    for x in range(left, right):
                        total[x] += popcount(line[x * stride + first] ^ word)


@exactly
def _count_rows(planes: Any, words: Any, o: int, y: int, rows: int, geometry: Any, total: Any) -> None:
    """As :func:`_count` for several whole rows at once, with stride 1: rows of planes lie one behind the other.

    Row ``r`` of the block is at ``r * planes.shape[2]`` of ``total``; what lies between the rows means nothing.
    """
    taps, dilation, spare, wide = geometry[0], geometry[2], geometry[6], planes.shape[2]
    length = rows * wide - (taps - 1) * dilation - spare
    total[:length] = np.uint64(0)
    for k in range(planes.shape[0]):
        flat = planes[k].ravel()
        for down in range(taps):
            for across in range(taps):
                word = words[o, k, down * taps + across]
                line = flat[(y + down * dilation + spare) * wide + across * dilation + spare :]
                for x in range(length):
                    total[x] += popcount(line[x] ^ word)


@exactly
def _count_one(planes: Any, words: Any, o: int, y: int, geometry: Any, total: Any, left: int, right: int) -> None:
    """As :func:`_count` for a convolution of every channel by itself: the one bit of channel ``o``."""
    taps, stride, dilation, spare = geometry[0], geometry[1], geometry[2], geometry[6]
    bit = np.uint64(o % 64)
    for down in range(taps):
        line = planes[o // 64, y * stride + down * dilation + spare]
        for across in range(taps):
            word, first = words[o, 0, down * taps + across], across * dilation + spare
            for x in range(left, right):
                total[x] += ((line[x * stride + first] >> bit) & np.uint64(1)) ^ word


@exactly
def _outside(sums: Any, geometry: Any, size: Any, y: int, x: int) -> int:
    """Sum of the signs of one output's weights at taps that lie beyond the picture, whose bits count as -1."""
    taps, stride, dilation, edge = geometry[0], geometry[1], geometry[2], geometry[3]
    found = 0
    for down in range(taps):
        row = y * stride + down * dilation - edge
        for across in range(taps):
            column = x * stride + across * dilation - edge
            if row < 0 or row >= size[0] or column < 0 or column >= size[1]:
                found += sums[down * taps + across]
    return found


@exactly
def binary(
    planes: Any,
    words: Any,
    sums: Any,
    geometry: Any,
    size: Any,
    low: int,
    scale: Any,
    bias: Any,
    where: Any,
    steps: Any,
    operands: Any,
    out: Any,
    start: int,
    stop: int,
) -> None:
    """A binary convolution, its factor, its bias, and a chain behind it.

    Args:
        planes: Packed signs with the convolution's edge.
        words: Packed signs of the weights, ``(O, K, taps * taps)`` uint64.
        sums: Sum of the weights' signs at every tap, ``(O, taps * taps)`` int64.
        geometry: Taps of a side, stride, dilation, edge, products of an output, whether channels are by themselves, and
            how much wider than the convolution's the edge of the planes is.
        size: Rows and columns of the input.
        low: What a cleared bit stands for: -1, or 0.
        scale: Factors of all outputs, ``(O,)``.
        bias: Biases of all outputs, ``(O,)``; empty for none.
        where: Mask ``(1, H, W)`` outside which the result is not needed and 0 is given instead; ``(1, 1, 1)`` for all.
        steps: Steps of the chain.
        operands: Operands of the chain.
        out: The result, ``(O, H', W')``.
        start: First row to compute.
        stop: The row after the last.
    """
    width, masked = out.shape[2], where.shape[1] > 1
    ends = np.empty((width + 1, 2), np.int64)
    ends[0, 0], ends[0, 1] = 0, width
    block = 1
    if geometry[1] == 1 and geometry[5] == 0 and (not masked or width < BLOCK // 2):
        block = max(1, BLOCK // planes.shape[2])
    total = np.empty(block * planes.shape[2], np.uint64)
    for first in range(start, stop, block):
        rows = min(block, stop - first)
        for o in range(out.shape[0]):
            if block > 1:
                _count_rows(planes, words, o, first, rows, geometry, total)
            for r in range(rows):
                y, row = first + r, out[o, first + r]
                if block > 1:
                    part = total[r * planes.shape[2] : r * planes.shape[2] + width]
                    _finish(row, part, o, y, sums, geometry, size, low, scale, bias, 0, width)
                else:
                    parts = runs(where[0, y], ends) if masked else 1
                    if masked:
                        row[:] = ZERO
                    for run in range(parts):
                        left, right = ends[run, 0], ends[run, 1]
                        total[left:right] = np.uint64(0)
                        if geometry[5] == 1:
                            _count_one(planes, words, o, y, geometry, total, left, right)
                        else:
                            _count(planes, words, o, y, geometry, total, left, right)
                        _finish(row, total, o, y, sums, geometry, size, low, scale, bias, left, right)
                chain(row, o, y, steps, operands)


@exactly
def _finish(
    row: Any,
    total: Any,
    o: int,
    y: int,
    sums: Any,
    geometry: Any,
    size: Any,
    low: int,
    scale: Any,
    bias: Any,
    left: int,
    right: int,
) -> None:
    """From differing bits to the sum of products, times its factor, plus its bias; columns ``left:right``."""
    products, edge, stride, width = geometry[4], geometry[3], geometry[1], row.shape[0]
    for x in range(left, right):
        row[x] = np.float32(products - 2 * np.int64(total[x]))
    if low == -1 and edge > 0:
        margin = (edge + stride - 1) // stride  # columns at each side that see beyond the picture
        if y * stride - edge < 0 or y * stride + edge >= size[0]:
            margin = width
        for x in range(left, min(right, margin)):
            row[x] += np.float32(_outside(sums[o], geometry, size, y, x))
        for x in range(max(left, margin, width - margin), right):
            row[x] += np.float32(_outside(sums[o], geometry, size, y, x))
    factor = scale[o]
    if low == 0:
        whole = np.float32(np.sum(sums[o]))
        for x in range(left, right):
            row[x] = (row[x] + whole) * HALF
    for x in range(left, right):
        row[x] = row[x] * factor
    if bias.shape[0] > 0:
        shift = bias[o]
        for x in range(left, right):
            row[x] = row[x] + shift
