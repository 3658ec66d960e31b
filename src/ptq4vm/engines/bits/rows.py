"""Loops over rows of floats, compiled by Numba, for what is not binary in a binary network.

Importing this needs Numba (the extra ``fast``). Values round as :mod:`ptq4vm.models.bivm.exact` says: every
multiplication and addition by itself (no ``fastmath``). Rows are called by their addresses, distances are in bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ptq4vm.engines.bits.tiles import floats_at, numbers_at

# Numba's cache sees changes of a function's own file only: when a loop that others call is edited, remove __pycache__.
exactly = njit(nogil=True, cache=True, error_model="numpy")

ADD, MUL, SUB, FROM, DIV, PRELU, RELU, TANH, SIGMOID, HARDSIGMOID, HARDSWISH, MIN, MAX, ADD_SCALED, BENT = range(15)
"""What a chain does with a row and an operand. ``FROM`` takes the row from the operand; ``ADD_SCALED`` adds the operand
times a second one; ``BENT`` subtracts the operand, multiplies what is negative by the second, and adds it again."""
STEP = 7
"""Numbers of a step: its kind; the operand's address, how many channels it has, how far they are apart, and how far its
rows (-1 where a channel is one value); the second operand's address and number of channels, a value each."""
ZERO, ONE, HALF, QUARTER, MOST = (np.float32(value) for value in (0, 1, 0.5, 0.25, 0.75))
SIXTH, FLAT = np.float32(1 / 6), np.float32(4.97)
A0, A1, A2 = np.float32(378), np.float32(17325), np.float32(135135)
B0, B1, B2, B3 = np.float32(28), np.float32(3150), np.float32(62370), np.float32(135135)


@exactly
def _tanh_row(row: Any, length: int, scale: Any, gain: Any, shift: Any) -> None:
    """``tanh(row * scale) * gain + shift`` in place."""
    for x in range(length):
        v = min(max(row[x] * scale, -FLAT), FLAT)
        square = v * v
        above = ((square + A0) * square + A1) * square + A2
        below = ((square * B0 + B1) * square + B2) * square + B3
        row[x] = min(max(v * above / below, -ONE), ONE) * gain + shift


@exactly
def _with_value(kind: int, row: Any, length: int, value: Any, second: Any) -> None:
    """A row and one value, or two."""
    if kind == BENT:
        for x in range(length):
            v = row[x] - value
            row[x] = (v if v >= ZERO else v * second) + value
    elif kind == ADD:
        for x in range(length):
            row[x] = row[x] + value
    elif kind == MUL:
        for x in range(length):
            row[x] = row[x] * value
    elif kind == SUB:
        for x in range(length):
            row[x] = row[x] - value
    elif kind == FROM:
        for x in range(length):
            row[x] = value - row[x]
    elif kind == DIV:
        for x in range(length):
            row[x] = row[x] / value
    elif kind == PRELU:
        for x in range(length):
            row[x] = row[x] if row[x] >= ZERO else row[x] * value
    elif kind == MIN:
        for x in range(length):
            row[x] = min(row[x], value)
    else:
        for x in range(length):
            row[x] = max(row[x], value)


@exactly
def _with_row(kind: int, row: Any, length: int, other: Any, second: Any) -> None:
    """A row and another one."""
    if kind == ADD_SCALED:
        for x in range(length):
            row[x] = row[x] + other[x] * second
    elif kind == ADD:
        for x in range(length):
            row[x] = row[x] + other[x]
    elif kind == MUL:
        for x in range(length):
            row[x] = row[x] * other[x]
    elif kind == SUB:
        for x in range(length):
            row[x] = row[x] - other[x]
    elif kind == FROM:
        for x in range(length):
            row[x] = other[x] - row[x]
    else:
        for x in range(length):
            row[x] = row[x] / other[x]


@exactly
def _alone(kind: int, row: Any, length: int) -> None:
    """A row by itself."""
    if kind == RELU:
        for x in range(length):
            row[x] = max(row[x], ZERO)
    elif kind == TANH:
        _tanh_row(row, length, ONE, ONE, ZERO)
    elif kind == SIGMOID:
        _tanh_row(row, length, HALF, HALF, HALF)
    elif kind == HARDSIGMOID:
        for x in range(length):
            row[x] = min(max(row[x] * SIXTH + HALF, ZERO), ONE)
    else:
        for x in range(length):
            row[x] = row[x] * min(max(row[x] * SIXTH + HALF, ZERO), ONE)


@exactly
def _elastic(row: Any, length: int, c: int, y: int, step: Any, bent: Any) -> None:
    """``ADD_SCALED`` and the ``BENT`` behind it in one pass: what binary blocks do most."""
    other = floats_at(step[1] + (c % step[2]) * step[3] + y * step[4])
    scale, slope = floats_at(step[5])[c % step[6]], floats_at(bent[5])[c % bent[6]]
    value = floats_at(bent[1] + (c % bent[2]) * bent[3])[0]
    for x in range(length):
        v = row[x] + other[x] * scale - value
        row[x] = (v if v >= ZERO else v * slope) + value


@exactly
def chain(address: int, length: int, c: int, y: int, steps: int, count: int) -> None:
    """All steps of a chain on what lies at an address: channel ``c`` from row ``y`` on.

    An operand with fewer channels is repeated. Rows of operands are as far apart as those of the result where
    ``length`` is more than one row.
    """
    row, number = floats_at(address), 0
    while number < count:
        step = numbers_at(steps + number * STEP * 8)
        kind, down = step[0], step[4]
        number += 1
        if kind == ADD_SCALED and number < count and step[STEP] == BENT:
            _elastic(row, length, c, y, step, numbers_at(steps + number * STEP * 8))
            number += 1
            continue
        if step[1] == 0:
            _alone(kind, row, length)
            continue
        second = floats_at(step[5])[c % step[6]] if step[5] != 0 else ZERO
        place = step[1] + (c % step[2]) * step[3]
        if down < 0:
            _with_value(kind, row, length, floats_at(place)[0], second)
        else:
            _with_row(kind, row, length, floats_at(place + y * down), second)


@exactly
def copy_row(source: int, out: int, length: int) -> None:
    """Floats from one address to another."""
    line, row = floats_at(source), floats_at(out)
    for x in range(length):
        row[x] = line[x]


@exactly
def fill_row(out: int, length: int, value: Any) -> None:
    """One value for a whole row."""
    row = floats_at(out)
    for x in range(length):
        row[x] = value


@exactly
def halve_row(top: int, bottom: int, out: int, width: int) -> None:
    """Means over 2x2 pixels; an odd last column is its own mean. ``width`` is the wide rows'."""
    upper, lower, row = floats_at(top), floats_at(bottom), floats_at(out)
    for x in range(width // 2):
        row[x] = ((upper[2 * x] + upper[2 * x + 1]) + (lower[2 * x] + lower[2 * x + 1])) * QUARTER
    if width % 2:
        x = width - 1
        row[x // 2] = ((upper[x] + upper[x]) + (lower[x] + lower[x])) * QUARTER


@exactly
def mix_rows(near: int, beside: int, width: int, mixed: Any) -> None:
    """Three quarters of a row and one of another, with the first and the last column once more at the ends."""
    line, other = floats_at(near), floats_at(beside)
    for x in range(width):
        mixed[x + 1] = line[x] * MOST + other[x] * QUARTER
    mixed[0], mixed[width + 1] = mixed[1], mixed[width]


@exactly
def double_row(near: int, beside: int, out: int, width: int, mixed: Any) -> None:
    """Bilinear enlargement to twice the ``width``, from the nearest row and the one beside; ``mixed`` has room for two
    more than that."""
    mix_rows(near, beside, width, mixed)
    row = floats_at(out)
    for x in range(width):
        here = mixed[x + 1] * MOST
        row[2 * x] = here + mixed[x] * QUARTER
        row[2 * x + 1] = here + mixed[x + 2] * QUARTER
