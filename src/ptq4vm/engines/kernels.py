"""Loops over the rows of a frame, compiled by Numba: a small image's A and b are enlarged, applied and composed.

Importing this needs Numba (the extra ``fast``). A row of A and b is spread to the frame's width once for all rows of
the frame that lie beside it; what is left for a pixel is arithmetic along planes of a row, which a CPU does for many at
once. Nothing of the frame's size is made but the result. All loops take ``both`` ``(8, h, w)`` float32 of the small
image (slopes of the three colours and of alpha, then their offsets) for colours in [0, 255], and where rows and columns
of the frame lie in it: ``down`` and ``across``, each ``(first, second, weight of the second)``. They write rows
``start:stop``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

compiled = njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
ZERO, ONE, WHITE = np.float32(0), np.float32(1), np.float32(255)
THIRD, HALF, SCALE = np.float32(1 / 765), np.float32(0.5), np.float32(1 / 255)


@compiled
def _spread(both: Any, row: int, across: Any, out: Any) -> None:
    """A row of the small image at the frame's width, ``(8, W)``."""
    first, second, weight = across
    for k in range(both.shape[0]):
        line, wide = both[k, row], out[k]
        for x in range(weight.shape[0]):
            a = line[first[x]]
            wide[x] = a + (line[second[x]] - a) * weight[x]


@compiled
def _spread_both(both: Any, y: int, down: Any, across: Any, rows: Any, kept: Any) -> None:
    """The two spread rows beside row ``y`` of the frame, where they are not there yet."""
    if kept[0] != down[0][y]:
        if kept[1] == down[0][y]:
            rows[0, :, :] = rows[1]
        else:
            _spread(both, down[0][y], across, rows[0])
        kept[0] = down[0][y]
    if kept[1] != down[1][y]:
        _spread(both, down[1][y], across, rows[1])
        kept[1] = down[1][y]


@compiled
def _apart(line: Any, planes: Any) -> None:
    """Colours of a row, ``(W, 3)``, as planes ``(3, W)``."""
    red, green, blue = planes[0], planes[1], planes[2]
    for x in range(line.shape[0]):
        red[x], green[x], blue[x] = np.float32(line[x, 0]), np.float32(line[x, 1]), np.float32(line[x, 2])


@compiled
def _apply_alpha(planes: Any, rows: Any, share: Any, out: Any) -> None:
    """Alpha of a row in [0, 1], whose slope and offset are the last of both halves of the planes."""
    slopes = rows.shape[1] // 2
    upper, lower = rows[0, slopes - 1], rows[1, slopes - 1]
    above, beneath = rows[0, 2 * slopes - 1], rows[1, 2 * slopes - 1]
    red, green, blue = planes[0], planes[1], planes[2]
    for x in range(out.shape[0]):
        slope = upper[x] + (lower[x] - upper[x]) * share
        offset = above[x] + (beneath[x] - above[x]) * share
        out[x] = min(max(slope * ((red[x] + green[x] + blue[x]) * THIRD) + offset, ZERO), ONE)


@compiled
def _begin_row(
    frame: Any, both: Any, y: int, down: Any, across: Any, rows: Any, kept: Any, planes: Any, shown: Any
) -> None:  # fmt: skip
    """What every picture of row ``y`` needs: A and b beside it in ``rows``, its colours, and its alpha."""
    _spread_both(both, y, down, across, rows, kept)
    _apart(frame[y], planes)
    _apply_alpha(planes, rows, down[2][y], shown)


@compiled
def _apply_colour(plane: Any, rows: Any, k: int, share: Any, out: Any) -> None:
    """Foreground of a row in [0, 255], in colour ``k``."""
    upper, lower, above, beneath = rows[0, k], rows[1, k], rows[0, k + 4], rows[1, k + 4]
    for x in range(out.shape[0]):
        slope = upper[x] + (lower[x] - upper[x]) * share
        offset = above[x] + (beneath[x] - above[x]) * share
        out[x] = min(max(plane[x] + slope * plane[x] + offset, ZERO), WHITE)


@compiled
def composite(
    frame: Any, both: Any, down: Any, across: Any, behind: Any, out: Any, start: int, stop: int
) -> None:  # fmt: skip
    """``alpha * F + (1 - alpha) * behind``, ``(H, W, 3)`` uint8; ``behind`` is a picture or one pixel, uint8."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes, back = np.empty((3, width), np.float32), np.empty((3, width), np.float32)
    shown, colour, mixed = np.empty(width, np.float32), np.empty(width, np.float32), np.empty((3, width), np.uint8)
    for k in range(3):
        back[k, :] = behind[0, 0, k]
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        if behind.shape[0] > 1 or behind.shape[1] > 1:
            _apart(behind[y], back)
        for k in range(3):
            _apply_colour(planes[k], rows, k, down[2][y], colour)
            rest, plane = back[k], mixed[k]
            for x in range(width):
                plane[x] = np.uint8(np.int32(rest[x] + (colour[x] - rest[x]) * shown[x] + HALF))
        line, red, green, blue = out[y], mixed[0], mixed[1], mixed[2]
        for x in range(width):
            line[x, 0], line[x, 1], line[x, 2] = red[x], green[x], blue[x]


@compiled
def layers(frame: Any, both: Any, down: Any, across: Any, out: Any, start: int, stop: int) -> None:
    """The foreground, black where alpha is 0, and alpha as the fourth channel, ``(H, W, 4)`` uint8."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes = np.empty((3, width), np.float32)
    shown, colour = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        line = out[y]
        for k in range(3):
            _apply_colour(planes[k], rows, k, down[2][y], colour)
            for x in range(width):
                line[x, k] = np.uint8(np.int32((colour[x] if shown[x] > ZERO else ZERO) + HALF))
        for x in range(width):
            line[x, 3] = np.uint8(np.int32(shown[x] * WHITE + HALF))


@compiled
def alpha(frame: Any, both: Any, down: Any, across: Any, out: Any, start: int, stop: int) -> None:
    """Alpha as grey, ``(H, W, 3)`` uint8; ``both`` has its slope and its offset alone, ``(2, h, w)``."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 2, width), np.float32), np.full(2, -1)
    planes, shown = np.empty((3, width), np.float32), np.empty(width, np.float32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        line = out[y]
        for x in range(width):
            value = np.uint8(np.int32(shown[x] * WHITE + HALF))
            line[x, 0], line[x, 1], line[x, 2] = value, value, value


@compiled
def values(
    frame: Any, both: Any, down: Any, across: Any, out: Any, colours: Any, start: int, stop: int
) -> None:  # fmt: skip
    """Alpha ``(H, W)`` and the foreground ``(H, W, 3)``, float32 in [0, 1]."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes, colour = np.empty((3, width), np.float32), np.empty((3, width), np.float32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, out[y])
        for k in range(3):
            _apply_colour(planes[k], rows, k, down[2][y], colour[k])
        line, red, green, blue = colours[y], colour[0], colour[1], colour[2]
        for x in range(width):
            line[x, 0], line[x, 1], line[x, 2] = red[x] * SCALE, green[x] * SCALE, blue[x] * SCALE


@compiled
def fit(small: Any, shown: Any, foreground: Any, eps: Any, out: Any) -> None:
    """A and b of a small image ``(h, w, 3)`` uint8, its alpha ``(h, w)`` and foreground ``(h, w, 3)`` in [0, 1]."""
    height, width = shown.shape
    guide, wanted = np.zeros((4, height + 2, width + 2), np.float32), np.zeros((4, height + 2, width + 2), np.float32)
    for y in range(height):
        for x in range(width):
            mean = ZERO
            for k in range(3):
                colour = np.float32(small[y, x, k]) * SCALE
                mean += colour
                guide[k, y + 1, x + 1] = colour
                wanted[k, y + 1, x + 1] = foreground[y, x, k] - colour
            guide[3, y + 1, x + 1] = mean / np.float32(3)
            wanted[3, y + 1, x + 1] = shown[y, x]
    sums, ninth = np.empty((4, width + 2), np.float32), np.float32(1 / 9)
    for k in range(4):
        unit = WHITE if k < 3 else ONE
        for y in range(height):
            for x in range(width + 2):
                g0, g1, g2 = guide[k, y, x], guide[k, y + 1, x], guide[k, y + 2, x]
                p0, p1, p2 = wanted[k, y, x], wanted[k, y + 1, x], wanted[k, y + 2, x]
                sums[0, x], sums[1, x] = g0 + g1 + g2, p0 + p1 + p2
                sums[2, x], sums[3, x] = g0 * p0 + g1 * p1 + g2 * p2, g0 * g0 + g1 * g1 + g2 * g2
            for x in range(width):
                mean_guide = (sums[0, x] + sums[0, x + 1] + sums[0, x + 2]) * ninth
                mean_wanted = (sums[1, x] + sums[1, x + 1] + sums[1, x + 2]) * ninth
                product = (sums[2, x] + sums[2, x + 1] + sums[2, x + 2]) * ninth
                square = (sums[3, x] + sums[3, x + 1] + sums[3, x + 2]) * ninth
                slope = (product - mean_guide * mean_wanted) / (square - mean_guide * mean_guide + eps)
                out[k, y, x], out[k + 4, y, x] = slope, (mean_wanted - slope * mean_guide) * unit
