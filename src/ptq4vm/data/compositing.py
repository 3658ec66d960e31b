"""The compositing equation, for floats in [0, 1] and for 8-bit images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def composite(foreground: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """Blend by the compositing equation ``I = alpha F + (1 - alpha) B``.

    Args:
        foreground: F, ``(..., 3, H, W)`` float.
        alpha: ``(..., 1, H, W)`` float in [0, 1].
        background: B, of a shape that broadcasts with ``foreground``.

    Returns:
        I, ``(..., 3, H, W)``, in the units of F and B.
    """
    return alpha * foreground + (1 - alpha) * background


def composite_uint8(foreground: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """:func:`composite` of uint8 images in [0, 255], rounded to the nearest uint8.

    Computed in whole numbers, and the same as in floating point: 255 I is whole, so that I is never half-way between
    two numbers.

    Args:
        foreground: F, ``(..., 3, H, W)``.
        alpha: ``(..., 1, H, W)``.
        background: B, ``(..., 3, H, W)``; leading dimensions of all three are broadcast.

    Returns:
        I, ``(..., 3, H, W)``.
    """
    lead = torch.broadcast_shapes(*(image.shape[:-3] for image in (foreground, alpha, background)))
    arrays = [image.expand(*lead, *image.shape[-3:]).numpy() for image in (foreground, alpha, background)]
    blend = np.empty((*lead, *np.broadcast_shapes(*(array.shape[-3:] for array in arrays))), np.uint8)
    total, part = np.empty((2, *blend.shape[-3:]), np.uint16)  # one frame's, which stay in the processor's cache
    for index in np.ndindex(*lead):
        front, weight, back = (array[index] for array in arrays)
        _blend(front, weight, back, blend[index], total, part)
    return torch.from_numpy(blend)


def _blend(
    foreground: NDArray[np.uint8],
    alpha: NDArray[np.uint8],
    background: NDArray[np.uint8],
    out: NDArray[np.uint8],
    total: NDArray[np.uint16],
    part: NDArray[np.uint16],
) -> None:
    """``(alpha F + (255 - alpha) B + 127) // 255``, which stays below 2^16."""
    weight = alpha.astype(np.uint16)
    np.copyto(total, foreground)
    total *= weight
    np.copyto(part, background)
    part *= 255 - weight
    total += part
    total += 127
    np.right_shift(total, 8, out=part)  # x // 255 = (x + 1 + x // 256) // 256 for x below 2^16 - 1
    part += total
    part += 1
    part >>= 8
    np.copyto(out, part, casting="unsafe")


def ping_pong(index: int, length: int) -> int:
    """Frame of a ``length``-frame clip shown at time ``index`` when it is played forth and back without end."""
    if length == 1:
        return 0
    phase = index % (2 * (length - 1))
    return phase if phase < length else 2 * (length - 1) - phase
