"""Operations of a ``.bits`` program, compiled by Numba: each computes rows ``start:stop`` of its result.

Importing this needs Numba (the extra ``fast``). An operation is a record of int64, whose fields are named here:
addresses, distances in bytes, numbers. Floats lie in rows that are a multiple of
:data:`~ptq4vm.engines.bits.tiles.ACROSS` apart, so that whole tiles are written; what is behind a row's end means
nothing. Packed signs are planes ``(ceil(C / 32), H + 2p, columns)`` uint32, channel ``c`` in bit ``c % 32`` of plane
``c // 32``, the edge of ``p`` cleared; for a convolution of stride ``s`` columns ``s`` apart lie side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptq4vm.engines.bits.rows import ZERO, chain, copy_row, double_row, exactly, fill_row, halve_row, mix_rows
from ptq4vm.engines.bits.tiles import (
    ACROSS,
    EXACT_OUTPUTS,
    OUTPUTS,
    binary_tile,
    exact_tile,
    float_tile,
    floats_at,
    numbers_at,
    sign_tile,
    touch,
    wide_sign_tile,
    words_at,
)

FIELDS = (
    "kind", "channels", "width", "length", "out", "far", "down", "steps", "count", "flat", "clean", "mask",
    "mask_down", "source", "source_far", "source_down", "source_channels", "height", "columns", "edge",
    "stride", "offsets", "taps", "weights", "base", "base_far", "base_down", "base_along", "classes", "factor",
    "bias", "shift", "threshold", "pair",
)  # fmt: skip
"""Names of a record's fields."""
(
    KIND, CHANNELS, WIDTH, LENGTH, OUT, FAR, DOWN, STEPS, COUNT, FLAT, CLEAN, MASK, MASK_DOWN, SOURCE, SOURCE_FAR,
    SOURCE_DOWN, SOURCE_CHANNELS, HEIGHT, COLUMNS, EDGE, STRIDE, OFFSETS, TAPS, WEIGHTS, BASE, BASE_FAR, BASE_DOWN,
    BASE_ALONG, CLASSES, FACTOR, BIAS, SHIFT, THRESHOLD, PAIR,
) = range(len(FIELDS))  # fmt: skip
BINARY, FLOAT, EXACT, ALONE, ELEMENTWISE, PACK, PAD, HALVE, DOUBLE, ENLARGE = range(10)
"""Kinds of operations."""
PIXEL = 4  # bytes
ENTRY = 4
"""Numbers of a channel in the table of signs."""
LEAST_BIT = np.uint32(1)
NOTHING = np.uint32(0)


@exactly
def _needed(mask: int) -> Any:
    """Whether a mask is set anywhere in a tile."""
    row, found = floats_at(mask), ZERO
    for x in range(ACROSS):
        found = max(found, row[x])
    return found > ZERO


@exactly
def _tile(op: Any, o: int, size: int, y: int, x: int, out: int, far: int) -> None:
    """A tile of a convolution, from output ``o`` and pixel ``x`` of row ``y`` on."""
    source, weights = op[SOURCE] + y * op[SOURCE_DOWN] + x * PIXEL, op[WEIGHTS] + o * op[TAPS] * size
    factor, bias = op[FACTOR] + o * PIXEL, op[BIAS] + o * PIXEL
    if op[KIND] == BINARY:
        base = op[BASE] + o * op[BASE_FAR] + x * op[BASE_ALONG]
        if op[CLASSES] != 0:
            base += numbers_at(op[CLASSES])[y] * op[BASE_DOWN]
        binary_tile(source, op[OFFSETS], op[TAPS], weights, base, op[BASE_FAR], factor, bias, out, far)
    elif op[KIND] == FLOAT:
        float_tile(source, op[OFFSETS], op[TAPS], weights, 0, 0, bias, bias, out, far)
    else:
        exact_tile(source, op[OFFSETS], op[TAPS], weights, 0, 0, bias, bias, out, far)


@exactly
def _add_needed(op: Any, o: int, size: int, y: int, x: int, out: int, far: int, spare: Any) -> None:
    """Add a tile of a convolution to another one's, where its mask is set: the sparse half of a sparse convolution."""
    mask = op[MASK] + y * op[MASK_DOWN] + x * PIXEL
    if not _needed(mask):
        return
    _tile(op, o, size, y, x, spare.ctypes.data, ACROSS * PIXEL)
    share = floats_at(mask)
    for number in range(min(spare.shape[0], op[CHANNELS] - o)):
        row = floats_at(out + number * far)
        for at in range(ACROSS):
            row[at] = row[at] + spare[number, at] * share[at]


@exactly
def _tiles(op: Any, o: int, outputs: int, size: int, y: int, spare: Any) -> None:
    """A row of several outputs of a convolution, and of the one that is added to it."""
    out, far = op[OUT] + o * op[FAR] + y * op[DOWN], op[FAR]
    for x in range(0, op[LENGTH], ACROSS):
        to = out + x * PIXEL
        if op[MASK] != 0 and not _needed(op[MASK] + y * op[MASK_DOWN] + x * PIXEL):
            for number in range(outputs):
                fill_row(to + number * far, ACROSS, ZERO)
        else:
            _tile(op, o, size, y, x, to, far)
            if op[PAIR] != 0:
                _add_needed(numbers_at(op[PAIR]), o, size, y, x, to, far, spare)


@exactly
def _finish(op: Any, c: int, start: int, stop: int) -> None:
    """The chain behind an operation, for rows of a channel; clears what lies behind their ends where that is read."""
    place = op[OUT] + c * op[FAR]
    if op[FLAT] == 1:
        chain(place + start * op[DOWN], (stop - start) * op[LENGTH], c, start, op[STEPS], op[COUNT])
    else:
        for y in range(start, stop):
            chain(place + y * op[DOWN], op[LENGTH], c, y, op[STEPS], op[COUNT])
    if op[CLEAN] == 1:
        for y in range(start, stop):
            fill_row(place + y * op[DOWN] + op[WIDTH] * PIXEL, op[LENGTH] - op[WIDTH], ZERO)


@exactly
def _fetch(op: Any, first: int, last: int) -> None:
    """Read rows of all channels one after the other: as a convolution reads them the CPU does not see them coming."""
    for c in range(op[SOURCE_CHANNELS]):
        for y in range(first, last):
            row = op[SOURCE] + c * op[SOURCE_FAR] + y * op[SOURCE_DOWN]
            for place in range(row, row + op[LENGTH] * PIXEL, 64):
                touch(place)


@exactly
def convolve(op: Any, start: int, stop: int) -> None:
    """A convolution of any kind, several outputs at once, and a chain behind it."""
    outputs, size = (EXACT_OUTPUTS, 8) if op[KIND] == EXACT else (OUTPUTS, 4)
    spare = np.empty((outputs, ACROSS), np.float32)
    reader = op if op[PAIR] == 0 else numbers_at(op[PAIR])
    for o in range(0, op[CHANNELS], outputs):
        for y in range(start, stop):
            if o == 0 and reader[HEIGHT] > 1:
                _fetch(reader, y if y == start else y + reader[HEIGHT] - 1, y + reader[HEIGHT])
            _tiles(op, o, outputs, size, y, spare)
        for c in range(o, min(o + outputs, op[CHANNELS])):
            _finish(op, c, start, stop)


@exactly
def convolve_alone(op: Any, start: int, stop: int) -> None:
    """A binary convolution of every channel by itself: one bit of its plane's words."""
    count = np.empty(op[LENGTH], np.int32)
    offsets = numbers_at(op[OFFSETS])
    for o in range(op[CHANNELS]):
        bit, factor, bias = np.uint32(o % 32), floats_at(op[FACTOR])[o], floats_at(op[BIAS])[o]
        weights = words_at(op[WEIGHTS] + o * op[TAPS] * 4)
        for y in range(start, stop):
            source = op[SOURCE] + o // 32 * op[SOURCE_FAR] + y * op[SOURCE_DOWN]
            base = words_at(
                op[BASE] + o * op[BASE_FAR] + (numbers_at(op[CLASSES])[y] * op[BASE_DOWN] if op[CLASSES] != 0 else 0)
            )
            count[:] = 0
            for tap in range(op[TAPS]):
                line, weight = words_at(source + offsets[tap]), weights[tap]
                for x in range(op[WIDTH]):
                    count[x] += np.int32(((line[x] >> bit) & LEAST_BIT) ^ weight)
            row, along = floats_at(op[OUT] + o * op[FAR] + y * op[DOWN]), op[BASE_ALONG] // PIXEL
            for x in range(op[WIDTH]):
                row[x] = np.float32(np.int32(base[x * along]) - 2 * count[x]) * factor + bias
        _finish(op, o, start, stop)


@exactly
def elementwise(op: Any, start: int, stop: int) -> None:
    """A chain on a tensor, which may have fewer channels, or one value for each."""
    for c in range(op[CHANNELS]):
        place = op[SOURCE] + (c % op[SOURCE_CHANNELS]) * op[SOURCE_FAR]
        out = op[OUT] + c * op[FAR]
        if op[SOURCE_DOWN] < 0:
            for y in range(start, stop):
                fill_row(out + y * op[DOWN], op[LENGTH], floats_at(place)[0])
        elif op[FLAT] == 1:
            copy_row(place + start * op[DOWN], out + start * op[DOWN], (stop - start) * op[LENGTH])
        else:
            for y in range(start, stop):
                copy_row(place + y * op[SOURCE_DOWN], out + y * op[DOWN], op[LENGTH])
        _finish(op, c, start, stop)


@exactly
def _nearest(y: int, height: int) -> tuple[int, int]:
    """The rows that row ``y`` of an enlarged picture is mixed of: the nearest, and the one beside."""
    near = y // 2
    return near, max(near - 1, 0) if y % 2 == 0 else min(near + 1, height - 1)


@exactly
def _rows_of(op: Any, first: int, last: int, y: int, rows: Any, mixed: Any) -> None:
    """Addresses of one row of every channel; of those that are enlarged, rows that are still to be widened."""
    for c in range(first, last):
        channel = numbers_at(op[SOURCE] + c * ENTRY * 8)
        if channel[2] == 0:
            rows[c - first] = channel[0] + y * channel[1]
        else:
            near, beside = _nearest(y, channel[2])
            from_near, from_beside = channel[0] + near * channel[1], channel[0] + beside * channel[1]
            rows[c - first] = mixed[c - first].ctypes.data
            mix_rows(from_near, from_beside, channel[3], mixed[c - first])


@exactly
def _sign_row(op: Any, first: int, last: int, y: int, place: int, words: Any, rows: Any, mixed: Any) -> None:
    """Signs of one row of up to 32 channels: those that are enlarged come first, and the others' bits are added.

    ``SOURCE`` is a table: a channel's address, its rows' distance, and its rows and columns where it is to be enlarged.
    """
    _rows_of(op, first, last, y, rows, mixed)
    shifts, table, wide = op[SHIFT] + first * PIXEL, rows.ctypes.data, 0
    while first + wide < last and numbers_at(op[SOURCE] + (first + wide) * ENTRY * 8)[2] != 0:
        wide += 1
    if wide > 0:
        for x in range(0, op[LENGTH], 2 * ACROSS):
            wide_sign_tile(table, wide, x // 2 * PIXEL, shifts, op[THRESHOLD], place + x * PIXEL)
    if wide == last - first:
        return
    to = words.ctypes.data if wide > 0 else place
    table, shifts, rest = table + wide * 8, shifts + wide * PIXEL, last - first - wide
    for x in range(0, op[LENGTH], ACROSS):
        sign_tile(table, rest, x * PIXEL, shifts, op[THRESHOLD], to + x * PIXEL)
    if wide > 0:
        row, shift = words_at(place), np.uint32(wide)
        for x in range(op[WIDTH]):
            row[x] |= words[x] << shift


@exactly
def pack(op: Any, start: int, stop: int) -> None:
    """Set the bits of channels where ``source + shift`` is at least the threshold."""
    stride, edge, width, length = op[STRIDE], op[EDGE], op[WIDTH], op[LENGTH]
    spare, words = np.empty(length + ACROSS, np.uint32), np.empty(length, np.uint32)
    mixed, rows = np.empty((32, length // 2 + 2 * ACROSS), np.float32), np.empty(32, np.int64)
    for y in range(start, stop):
        for plane in range((op[CHANNELS] + 31) // 32):
            row = op[OUT] + plane * op[FAR] + (y + edge) * op[DOWN]
            place = row + edge * PIXEL if stride == 1 else spare.ctypes.data
            _sign_row(op, 32 * plane, min(32 * plane + 32, op[CHANNELS]), y, place, words, rows, mixed)
            line = words_at(row)
            if stride == 1:
                for x in range(width, (length + ACROSS) // (2 * ACROSS) * 2 * ACROSS):
                    line[x + edge] = NOTHING
            else:
                for x in range(width):
                    line[(x + edge) % stride * op[COLUMNS] + (x + edge) // stride] = spare[x]


@exactly
def pad(op: Any, start: int, stop: int) -> None:
    """A tensor with an edge of zeros, its columns apart as the stride says."""
    stride, edge = op[STRIDE], op[EDGE]
    for c in range(op[CHANNELS]):
        for y in range(start, stop):
            line = floats_at(op[SOURCE] + c * op[SOURCE_FAR] + y * op[SOURCE_DOWN])
            for phase in range(stride):
                row = floats_at(op[OUT] + c * op[FAR] + (y + edge) * op[DOWN] + phase * op[COLUMNS] * PIXEL)
                first = (phase - edge) % stride
                at = (first + edge) // stride
                for x in range((op[WIDTH] - first + stride - 1) // stride):
                    row[at + x] = line[first + x * stride]


@exactly
def halve(op: Any, start: int, stop: int) -> None:
    """Means over 2x2 pixels; an odd last row or column is its own mean."""
    for c in range(op[CHANNELS]):
        source = op[SOURCE] + c * op[SOURCE_FAR]
        for y in range(start, stop):
            top, bottom = source + 2 * y * op[SOURCE_DOWN], source + min(2 * y + 1, op[HEIGHT] - 1) * op[SOURCE_DOWN]
            halve_row(top, bottom, op[OUT] + c * op[FAR] + y * op[DOWN], op[COLUMNS])


@exactly
def double(op: Any, start: int, stop: int) -> None:
    """Bilinear enlargement to twice the size."""
    mixed = np.empty(op[COLUMNS] + 2, np.float32)
    for c in range(op[CHANNELS]):
        source = op[SOURCE] + c * op[SOURCE_FAR]
        for y in range(start, stop):
            near, beside = _nearest(y, op[HEIGHT])
            out = op[OUT] + c * op[FAR] + y * op[DOWN]
            double_row(source + near * op[SOURCE_DOWN], source + beside * op[SOURCE_DOWN], out, op[COLUMNS], mixed)


@exactly
def enlarge(op: Any, start: int, stop: int) -> None:
    """Every value as a block of ``STRIDE`` times as many rows and columns."""
    factor = op[STRIDE]
    for c in range(op[CHANNELS]):
        for y in range(start, stop):
            line = floats_at(op[SOURCE] + c * op[SOURCE_FAR] + y // factor * op[SOURCE_DOWN])
            row = floats_at(op[OUT] + c * op[FAR] + y * op[DOWN])
            for x in range(op[WIDTH]):
                row[x] = line[x // factor]


@exactly
def work(record: int, start: int, stop: int) -> None:
    """Rows ``start:stop`` of the operation whose record lies at an address."""
    op = numbers_at(record)
    kind = op[KIND]
    if kind <= EXACT:
        convolve(op, start, stop)
    elif kind == ELEMENTWISE:
        elementwise(op, start, stop)
    elif kind == PACK:
        pack(op, start, stop)
    elif kind == ALONE:
        convolve_alone(op, start, stop)
    elif kind == PAD:
        pad(op, start, stop)
    elif kind == HALVE:
        halve(op, start, stop)
    elif kind == DOUBLE:
        double(op, start, stop)
    else:
        enlarge(op, start, stop)
