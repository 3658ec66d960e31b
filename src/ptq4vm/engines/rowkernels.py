"""Loops over rows of floats, compiled by Numba, for what is not binary in a binary network.

Importing this needs Numba (the extra ``fast``). Arrays are ``(C, H, W)`` float32. Loops that come before a sign round
as :mod:`ptq4vm.models.bivm.exact` says: every multiplication and addition by itself (no ``fastmath``). All write rows
(or channels) ``start:stop`` of their result, so that threads share them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

exactly = njit(nogil=True, cache=True, error_model="numpy")
loosely = njit(nogil=True, cache=True, error_model="numpy", fastmath=True)

ADD, MUL, SUB, FROM, DIV, PRELU, RELU, TANH, SIGMOID, HARDSIGMOID, HARDSWISH, MIN, MAX = range(13)
"""What a chain does with a row and an operand; ``FROM`` takes the row from the operand."""
ZERO, ONE, HALF, QUARTER, MOST = (np.float32(value) for value in (0, 1, 0.5, 0.25, 0.75))
SIXTH, FLAT = np.float32(1 / 6), np.float32(4.97)
A0, A1, A2 = np.float32(378), np.float32(17325), np.float32(135135)
B0, B1, B2, B3 = np.float32(28), np.float32(3150), np.float32(62370), np.float32(135135)
GAP = 48
"""Columns between two runs of a mask that are sooner computed than left out."""


@exactly
def _tanh_row(row: Any, scale: Any, gain: Any, shift: Any) -> None:
    """``tanh(row * scale) * gain + shift`` in place."""
    for x in range(row.shape[0]):
        v = min(max(row[x] * scale, -FLAT), FLAT)
        square = v * v
        above = ((square + A0) * square + A1) * square + A2
        below = ((square * B0 + B1) * square + B2) * square + B3
        row[x] = min(max(v * above / below, -ONE), ONE) * gain + shift


@exactly
def _with_operand(kind: int, row: Any, other: Any) -> None:
    """A row and an operand of the same length, or of one value."""
    if other.shape[0] == 1:
        value = other[0]
        if kind == ADD:
            for x in range(row.shape[0]):
                row[x] = row[x] + value
        elif kind == MUL:
            for x in range(row.shape[0]):
                row[x] = row[x] * value
        elif kind == SUB:
            for x in range(row.shape[0]):
                row[x] = row[x] - value
        elif kind == FROM:
            for x in range(row.shape[0]):
                row[x] = value - row[x]
        elif kind == DIV:
            for x in range(row.shape[0]):
                row[x] = row[x] / value
        elif kind == PRELU:
            for x in range(row.shape[0]):
                row[x] = row[x] if row[x] >= ZERO else row[x] * value
        elif kind == MIN:
            for x in range(row.shape[0]):
                row[x] = min(row[x], value)
        else:
            for x in range(row.shape[0]):
                row[x] = max(row[x], value)
    elif kind == ADD:
        for x in range(row.shape[0]):
            row[x] = row[x] + other[x]
    elif kind == MUL:
        for x in range(row.shape[0]):
            row[x] = row[x] * other[x]
    elif kind == SUB:
        for x in range(row.shape[0]):
            row[x] = row[x] - other[x]
    elif kind == FROM:
        for x in range(row.shape[0]):
            row[x] = other[x] - row[x]
    else:
        for x in range(row.shape[0]):
            row[x] = row[x] / other[x]


@exactly
def chain(row: Any, c: int, y: int, steps: Any, operands: Any) -> None:
    """All steps of a chain on a row of channel ``c``; an operand with fewer channels is repeated, one row is spread."""
    for number in range(steps.shape[0]):
        kind = steps[number, 0]
        if kind == RELU:
            for x in range(row.shape[0]):
                row[x] = max(row[x], ZERO)
        elif kind == TANH:
            _tanh_row(row, ONE, ONE, ZERO)
        elif kind == SIGMOID:
            _tanh_row(row, HALF, HALF, HALF)
        elif kind == HARDSIGMOID:
            for x in range(row.shape[0]):
                row[x] = min(max(row[x] * SIXTH + HALF, ZERO), ONE)
        elif kind == HARDSWISH:
            for x in range(row.shape[0]):
                row[x] = row[x] * min(max(row[x] * SIXTH + HALF, ZERO), ONE)
        else:
            other = operands[steps[number, 1]]
            _with_operand(kind, row, other[c % other.shape[0], y if other.shape[1] > 1 else 0])


@exactly
def elementwise(source: Any, steps: Any, operands: Any, out: Any, start: int, stop: int) -> None:
    """A chain on every row of channels ``start:stop``; ``source`` may have fewer channels, one row, or one value."""
    for c in range(start, stop):
        for y in range(out.shape[1]):
            row, line = out[c, y], source[c % source.shape[0], y if source.shape[1] > 1 else 0]
            if line.shape[0] == 1:
                row[:] = line[0]
            else:
                row[:] = line
            chain(row, c, y, steps, operands)


@exactly
def runs(mask: Any, ends: Any) -> int:
    """Where a row of a mask is set: first and last column of every run, into ``ends``. Gives their number.

    Runs with a short gap between them are one: what is computed in the gap is multiplied by the mask afterwards.
    """
    found = 0
    for x in range(mask.shape[0]):
        if mask[x] > ZERO:
            if found > 0 and x - ends[found - 1, 1] < GAP:
                ends[found - 1, 1] = x + 1
            else:
                ends[found, 0], ends[found, 1] = x, x + 1
                found += 1
    return found


@exactly
def exact_conv(
    source: Any, weight: Any, bias: Any, stride: int, steps: Any, operands: Any, out: Any, start: int, stop: int
) -> None:
    """A float convolution summed in float64; ``source`` ``(C, H + 2p, W + 2p)`` has its edge already."""
    width = out.shape[2]
    total = np.empty(width, np.float64)
    for y in range(start, stop):
        for o in range(out.shape[0]):
            total[:] = np.float64(bias[o])
            for i in range(weight.shape[1]):
                for down in range(weight.shape[2]):
                    line = source[i, y * stride + down]
                    for across in range(weight.shape[3]):
                        w = np.float64(weight[o, i, down, across])
                        for x in range(width):
                            total[x] += w * np.float64(line[x * stride + across])
            row = out[o, y]
            for x in range(width):
                row[x] = np.float32(total[x])
            chain(row, o, y, steps, operands)


@loosely
def _add_nine(lines: Any, y: int, weight: Any, row: Any, left: int, right: int) -> None:
    """Products of three rows of a channel with nine taps."""
    top, middle, bottom = lines[y], lines[y + 1], lines[y + 2]
    a, b, c = weight[0, 0], weight[0, 1], weight[0, 2]
    d, e, f = weight[1, 0], weight[1, 1], weight[1, 2]
    g, h, i = weight[2, 0], weight[2, 1], weight[2, 2]
    for x in range(left, right):
        row[x] += (
            (a * top[x] + b * top[x + 1] + c * top[x + 2])
            + (d * middle[x] + e * middle[x + 1] + f * middle[x + 2])
            + (g * bottom[x] + h * bottom[x + 1] + i * bottom[x + 2])
        )


@loosely
def _add_four(source: Any, i: int, y: int, weight: Any, row: Any, left: int, right: int) -> None:
    """Products of four channels with a tap each; of as many as are left at the end."""
    left_over = source.shape[0] - i
    if left_over >= 4:
        a, b, c, d = weight[i, 0, 0], weight[i + 1, 0, 0], weight[i + 2, 0, 0], weight[i + 3, 0, 0]
        first, second, third, fourth = source[i, y], source[i + 1, y], source[i + 2, y], source[i + 3, y]
        for x in range(left, right):
            row[x] += a * first[x] + b * second[x] + c * third[x] + d * fourth[x]
    else:
        for number in range(left_over):
            w, line = weight[i + number, 0, 0], source[i + number, y]
            for x in range(left, right):
                row[x] += w * line[x]


@exactly
def conv(
    source: Any, weight: Any, bias: Any, where: Any, steps: Any, operands: Any, out: Any, start: int, stop: int
) -> None:
    """A float convolution of one or three taps a side, stride 1, with no sign behind it.

    ``source`` has its edge; ``where`` as in :func:`binary`.
    """
    width, taps = out.shape[2], weight.shape[3]
    ends = np.empty((width + 1, 2), np.int64)
    ends[0, 0], ends[0, 1] = 0, width
    for y in range(start, stop):
        parts = runs(where[0, y], ends) if where.shape[1] > 1 else 1
        for o in range(out.shape[0]):
            row = out[o, y]
            row[:] = bias[o]
            for run in range(parts):
                left, right = ends[run, 0], ends[run, 1]
                if taps == 3:
                    for i in range(weight.shape[1]):
                        _add_nine(source[i], y, weight[o, i], row, left, right)
                else:
                    for i in range(0, weight.shape[1], 4):
                        _add_four(source, i, y, weight[o], row, left, right)
            chain(row, o, y, steps, operands)


@exactly
def halve(source: Any, out: Any, start: int, stop: int) -> None:
    """Means over 2x2 pixels; an odd last row or column is its own mean."""
    height, width = source.shape[1], source.shape[2]
    for c in range(out.shape[0]):
        for y in range(start, stop):
            top, bottom, row = source[c, 2 * y], source[c, min(2 * y + 1, height - 1)], out[c, y]
            for x in range(width // 2):
                row[x] = ((top[2 * x] + top[2 * x + 1]) + (bottom[2 * x] + bottom[2 * x + 1])) * QUARTER
            if width % 2:
                last = width - 1
                row[last // 2] = ((top[last] + top[last]) + (bottom[last] + bottom[last])) * QUARTER


@exactly
def double(source: Any, out: Any, start: int, stop: int) -> None:
    """Bilinear enlargement to twice the size, or one row or column less, as ``out`` has room."""
    height, width = source.shape[1], source.shape[2]
    mixed = np.empty(width, np.float32)
    for c in range(out.shape[0]):
        for y in range(start, stop):
            near = y // 2
            line = source[c, near]
            beside = source[c, max(near - 1, 0) if y % 2 == 0 else min(near + 1, height - 1)]
            for x in range(width):
                mixed[x] = line[x] * MOST + beside[x] * QUARTER
            row = out[c, y]
            for x in range(out.shape[2] // 2):
                here = mixed[x] * MOST
                row[2 * x] = here + mixed[max(x - 1, 0)] * QUARTER
                row[2 * x + 1] = here + mixed[min(x + 1, width - 1)] * QUARTER
            if out.shape[2] % 2:
                x = out.shape[2] // 2
                row[2 * x] = mixed[x] * MOST + mixed[max(x - 1, 0)] * QUARTER
