"""Loops over the rows of a frame, compiled by Numba: a small image's A and b are enlarged, applied and composed.

Importing this needs Numba (the extra ``fast``). A row of A and b is spread to the frame's width once for all rows of
the frame that lie beside it; what is left for a pixel is arithmetic along planes of a row, which a CPU does for many at
once. Nothing of the frame's size is made but the result. All loops take ``both`` ``(8, h, w)`` float32 of the small
image (slopes of the three colours and of alpha, then their offsets) for colours in [0, 255], and where rows and columns
of the frame lie in it: ``down`` and ``across``, each ``(first, second, weight of the second)``, the first two uint32 (a
negative index would have to be looked for). They write rows ``start:stop``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

compiled = njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
ZERO, ONE, WHITE = np.float32(0), np.float32(1), np.float32(255)
EDGE = 1e-9  # of a pixel: less is not beyond an edge
THIRD, HALF, QUARTER, SCALE = np.float32(1 / 765), np.float32(0.5), np.float32(0.25), np.float32(1 / 255)


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
    """The two spread rows beside row ``y`` of the frame, where they are not there yet: even ones first in ``rows``."""
    for beside in (down[0][y], down[1][y]):
        place = beside & 1
        if kept[place] != beside:
            _spread(both, beside, across, rows[place])
            kept[place] = beside


@compiled
def _apart(line: Any, planes: Any) -> None:
    """Colours of a row, ``(W, 3)`` uint8, as the first three of ``planes`` ``(6, W)``; the others are room for this.

    As floats they are told apart several times as quickly as as codes.
    """
    width = line.shape[0]
    codes, wide = line.reshape(3 * width), planes[3:].reshape(3 * width)
    for x in range(3 * width):
        wide[x] = np.float32(codes[x])
    red, green, blue = planes[0], planes[1], planes[2]
    for x in range(width):
        red[x], green[x], blue[x] = wide[3 * x], wide[3 * x + 1], wide[3 * x + 2]


@compiled
def _apply_alpha(planes: Any, rows: Any, y: int, down: Any, out: Any) -> None:
    """Alpha of row ``y`` in [0, 1], whose slope and offset are the last of both halves of the planes."""
    slopes, first, second, share = rows.shape[1] // 2, down[0][y] & 1, down[1][y] & 1, down[2][y]
    upper, lower = rows[first, slopes - 1], rows[second, slopes - 1]
    above, beneath = rows[first, 2 * slopes - 1], rows[second, 2 * slopes - 1]
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
    _apply_alpha(planes, rows, y, down, shown)


@compiled
def _apply_colour(plane: Any, rows: Any, k: int, y: int, down: Any, out: Any) -> None:
    """Foreground of row ``y`` in [0, 255], in colour ``k``."""
    first, second, share = down[0][y] & 1, down[1][y] & 1, down[2][y]
    upper, lower, above, beneath = rows[first, k], rows[second, k], rows[first, k + 4], rows[second, k + 4]
    for x in range(out.shape[0]):
        slope = upper[x] + (lower[x] - upper[x]) * share
        offset = above[x] + (beneath[x] - above[x]) * share
        out[x] = min(max(plane[x] + slope * plane[x] + offset, ZERO), WHITE)


@compiled
def _colour_of(behind: Any, width: int) -> Any:
    """Room for a row of the background as :func:`_apart` leaves it, filled with the colour of its first pixel."""
    back = np.empty((6, width), np.float32)
    for k in range(3):
        back[k, :] = behind[0, 0, k]
    return back


@compiled
def _blend(
    planes: Any, rows: Any, y: int, down: Any, shown: Any, behind: Any, back: Any, colours: Any
) -> None:  # fmt: skip
    """Row ``y`` of ``alpha * F + (1 - alpha) * behind``, ``(3, W)`` in [0, 255]; ``back`` from :func:`_colour_of`."""
    if behind.shape[0] > 1 or behind.shape[1] > 1:
        _apart(behind[y], back)
    for k in range(3):
        rest, colour = back[k], colours[k]
        _apply_colour(planes[k], rows, k, y, down, colour)
        for x in range(shown.shape[0]):
            colour[x] = rest[x] + (colour[x] - rest[x]) * shown[x]


@compiled
def composite(
    frame: Any, both: Any, down: Any, across: Any, behind: Any, out: Any, start: int, stop: int
) -> None:  # fmt: skip
    """``alpha * F + (1 - alpha) * behind``, ``(H, W, 3)`` uint8; ``behind`` is a picture or one pixel, uint8."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes, shown, back = np.empty((6, width), np.float32), np.empty(width, np.float32), _colour_of(behind, width)
    colours, mixed = np.empty((3, width), np.float32), np.empty((3, width), np.uint32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        _blend(planes, rows, y, down, shown, behind, back, colours)
        for k in range(3):
            colour, plane = colours[k], mixed[k]
            for x in range(width):
                plane[x] = np.uint32(np.int32(colour[x] + HALF))
        line, red, green, blue = out[y].reshape(3 * width), mixed[0], mixed[1], mixed[2]
        for x in range(width):  # words of 32 bits are put side by side twice as quickly as bytes
            line[3 * x], line[3 * x + 1], line[3 * x + 2] = np.uint8(red[x]), np.uint8(green[x]), np.uint8(blue[x])


@compiled
def composite_420(
    frame: Any, both: Any, down: Any, across: Any, behind: Any, weights: Any, out: Any, start: int, stop: int
) -> None:  # fmt: skip
    """A composite as YUV 4:2:0, ``(3 * H / 2, W)`` uint8: all of Y, then all of U and of V at half the resolution.

    ``weights`` ``(3, 4)`` float32 make Y, U and V of red, green, blue and 1. Here ``start`` and ``stop`` count pairs of
    rows.
    """
    height, width = frame.shape[:2]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes, shown, back = np.empty((6, width), np.float32), np.empty(width, np.float32), _colour_of(behind, width)
    colours, sums = np.empty((3, width), np.float32), np.empty((3, width), np.float32)
    codes, quarter = out.reshape(out.size), (height // 2) * (width // 2)
    for pair in range(start, stop):
        for y in range(2 * pair, 2 * pair + 2):
            _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
            _blend(planes, rows, y, down, shown, behind, back, colours)
            for k in range(3):
                colour, total = colours[k], sums[k]
                for x in range(width):
                    total[x] = colour[x] if y % 2 == 0 else total[x] + colour[x]
            _weigh(colours, weights[0], ONE, out[y])
        _halve(sums)
        for k in range(2):
            place = height * width + k * quarter + pair * (width // 2)
            _weigh(sums[:, : width // 2], weights[k + 1], QUARTER, codes[place : place + width // 2])


@compiled
def _weigh(colours: Any, weights: Any, share: Any, line: Any) -> None:
    """One of Y, U and V of a row, from red, green and blue times ``share``."""
    red, green, blue = colours[0], colours[1], colours[2]
    of_red, of_green, of_blue, more = weights[0] * share, weights[1] * share, weights[2] * share, weights[3] + HALF
    for x in range(line.shape[0]):
        line[x] = np.uint8(np.int32(red[x] * of_red + green[x] * of_green + blue[x] * of_blue + more))


@compiled
def _halve(planes: Any) -> None:
    """Sums of two columns each, in the first half of each plane."""
    for k in range(planes.shape[0]):
        plane = planes[k]
        for x in range(plane.shape[0] // 2):
            plane[x] = plane[2 * x] + plane[2 * x + 1]


@compiled
def layers(frame: Any, both: Any, down: Any, across: Any, out: Any, start: int, stop: int) -> None:
    """The foreground, black where alpha is 0, and alpha as the fourth channel, ``(H, W, 4)`` uint8."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes = np.empty((6, width), np.float32)
    shown, colour, mixed = np.empty(width, np.float32), np.empty(width, np.float32), np.empty((3, width), np.uint32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        for k in range(3):
            _apply_colour(planes[k], rows, k, y, down, colour)
            plane = mixed[k]
            for x in range(width):
                plane[x] = np.uint32(np.int32((colour[x] if shown[x] > ZERO else ZERO) + HALF))
        line, red, green, blue = out[y].reshape(4 * width), mixed[0], mixed[1], mixed[2]
        for x in range(width):
            line[4 * x], line[4 * x + 1], line[4 * x + 2] = np.uint8(red[x]), np.uint8(green[x]), np.uint8(blue[x])
            line[4 * x + 3] = np.uint8(np.int32(shown[x] * WHITE + HALF))


@compiled
def alpha(frame: Any, both: Any, down: Any, across: Any, out: Any, start: int, stop: int) -> None:
    """Alpha as grey, ``(H, W, 3)`` uint8; ``both`` has its slope and its offset alone, ``(2, h, w)``."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 2, width), np.float32), np.full(2, -1)
    planes, shown = np.empty((6, width), np.float32), np.empty(width, np.float32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        line = out[y]
        for x in range(width):
            value = np.uint8(np.int32(shown[x] * WHITE + HALF))
            line[x, 0], line[x, 1], line[x, 2] = value, value, value


@compiled
def alpha_420(frame: Any, both: Any, down: Any, across: Any, weights: Any, out: Any, start: int, stop: int) -> None:
    """Alpha as Y, ``(H, W)`` uint8; ``both`` as for :func:`alpha`, ``weights`` as for :func:`composite_420`."""
    width, scale = frame.shape[1], (weights[0, 0] + weights[0, 1] + weights[0, 2]) * WHITE
    rows, kept, more = np.empty((2, 2, width), np.float32), np.full(2, -1), weights[0, 3] + HALF
    planes, shown = np.empty((6, width), np.float32), np.empty(width, np.float32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, shown)
        line = out[y]
        for x in range(width):
            line[x] = np.uint8(np.int32(shown[x] * scale + more))


@compiled
def values(
    frame: Any, both: Any, down: Any, across: Any, out: Any, colours: Any, start: int, stop: int
) -> None:  # fmt: skip
    """Alpha ``(H, W)`` and the foreground ``(H, W, 3)``, float32 in [0, 1]."""
    width = frame.shape[1]
    rows, kept = np.empty((2, 8, width), np.float32), np.full(2, -1)
    planes, colour = np.empty((6, width), np.float32), np.empty((3, width), np.float32)
    for y in range(start, stop):
        _begin_row(frame, both, y, down, across, rows, kept, planes, out[y])
        for k in range(3):
            _apply_colour(planes[k], rows, k, y, down, colour[k])
        line, red, green, blue = colours[y], colour[0], colour[1], colour[2]
        for x in range(width):
            line[x, 0], line[x, 1], line[x, 2] = red[x] * SCALE, green[x] * SCALE, blue[x] * SCALE


@compiled
def fit(small: Any, shown: Any, foreground: Any, eps: Any, out: Any, start: int, stop: int) -> None:
    """A and b of a small image ``(h, w, 3)`` uint8, its alpha ``(h, w)`` and foreground ``(h, w, 3)`` in [0, 1].

    Three rows are kept at a time, which stay in the first cache.
    """
    size = (3, 4, shown.shape[1] + 2)
    guide, wanted = np.zeros(size, np.float32), np.zeros(size, np.float32)
    sums, wide = np.empty(size[1:], np.float32), np.empty(3 * shown.shape[1], np.float32)
    for y in range(start - 1, stop + 1):
        _fit_row(small, shown, foreground, y, guide[y % 3], wanted[y % 3], wide)
        if y <= start:
            continue
        for k in range(4):
            _add_rows(guide[:, k], wanted[:, k], y, sums[0], sums[1], sums[2], sums[3])
            _solve(sums[0], sums[1], sums[2], sums[3], eps, WHITE if k < 3 else ONE, out[k, y - 1], out[k + 4, y - 1])


@compiled
def _fit_row(small: Any, shown: Any, foreground: Any, y: int, guide: Any, wanted: Any, wide: Any) -> None:
    """Guide and what is wanted of row ``y``, ``(4, w + 2)``; zeros beside the image count; ``wide`` is room for it."""
    height, width = shown.shape
    if y < 0 or y >= height:
        guide[:, :], wanted[:, :] = ZERO, ZERO
        return
    codes, colours = small[y].reshape(3 * width), foreground[y].reshape(3 * width)
    for x in range(3 * width):
        wide[x] = np.float32(codes[x]) * SCALE
    red, green, blue, mean = guide[0], guide[1], guide[2], guide[3]
    for x in range(width):
        red[x + 1], green[x + 1], blue[x + 1] = wide[3 * x], wide[3 * x + 1], wide[3 * x + 2]
        mean[x + 1] = (wide[3 * x] + wide[3 * x + 1] + wide[3 * x + 2]) / np.float32(3)
    for x in range(3 * width):
        wide[x] = colours[x] - wide[x]
    red, green, blue = wanted[0], wanted[1], wanted[2]
    for x in range(width):
        red[x + 1], green[x + 1], blue[x + 1] = wide[3 * x], wide[3 * x + 1], wide[3 * x + 2]
    wanted[3, 1 : width + 1] = shown[y]


@compiled
def _add_rows(guide: Any, wanted: Any, last: int, guides: Any, wishes: Any, products: Any, squares: Any) -> None:
    """Sums over the three rows up to ``last``: of the guide, of what is wanted, of their product, of squares."""
    g, h, i = guide[(last - 2) % 3], guide[(last - 1) % 3], guide[last % 3]
    p, q, r = wanted[(last - 2) % 3], wanted[(last - 1) % 3], wanted[last % 3]
    for x in range(guides.shape[0]):
        guides[x], wishes[x] = g[x] + h[x] + i[x], p[x] + q[x] + r[x]
        products[x] = g[x] * p[x] + h[x] * q[x] + i[x] * r[x]
        squares[x] = g[x] * g[x] + h[x] * h[x] + i[x] * i[x]


@compiled
def _solve(
    guides: Any, wishes: Any, products: Any, squares: Any, eps: Any, unit: Any, slopes: Any, offsets: Any
) -> None:  # fmt: skip
    """Slopes and offsets of a row from sums over three rows, added up over three columns."""
    ninth = np.float32(1 / 9)
    for x in range(slopes.shape[0]):
        mean_guide = (guides[x] + guides[x + 1] + guides[x + 2]) * ninth
        mean_wanted = (wishes[x] + wishes[x + 1] + wishes[x + 2]) * ninth
        product = (products[x] + products[x + 1] + products[x + 2]) * ninth
        square = (squares[x] + squares[x + 1] + squares[x + 2]) * ninth
        slope = (product - mean_guide * mean_wanted) / (square - mean_guide * mean_guide + eps)
        slopes[x], offsets[x] = slope, (mean_wanted - slope * mean_guide) * unit


@compiled
def shrink(frame: Any, out: Any, start: int, stop: int) -> None:
    """Means of the pixels that lie in each pixel of a smaller picture, in part where they do in part, uint8.

    ``frame`` ``(H, W, 3)``, ``out`` ``(h, w, 3)``, neither side of which is longer. Rows are added up first, which a
    CPU does for many values at once.
    """
    height, width, (rows, columns) = frame.shape[0], frame.shape[1], out.shape[:2]
    flat, total = frame.reshape(height, 3 * width), np.empty(3 * width, np.float32)
    downwards, across = height / rows, width / columns
    scale = np.float32(1 / (downwards * across))
    for y in range(start, stop):
        top, bottom = y * downwards, min((y + 1) * downwards, height)
        total[:] = 0
        for j in range(int(top), int(np.ceil(bottom - EDGE))):
            share, line = np.float32(min(j + 1, bottom) - max(j, top)), flat[j]
            for x in range(3 * width):
                total[x] += share * np.float32(line[x])
        for x in range(columns):
            left, right = x * across, min((x + 1) * across, width)
            red, green, blue = ZERO, ZERO, ZERO
            for i in range(int(left), int(np.ceil(right - EDGE))):
                share = np.float32(min(i + 1, right) - max(i, left))
                red += share * total[3 * i]
                green += share * total[3 * i + 1]
                blue += share * total[3 * i + 2]
            place = out[y, x]
            place[0] = np.uint8(np.int32(red * scale + HALF))
            place[1] = np.uint8(np.int32(green * scale + HALF))
            place[2] = np.uint8(np.int32(blue * scale + HALF))
