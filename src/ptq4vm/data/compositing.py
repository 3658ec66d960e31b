"""The compositing equation, for floats in [0, 1] and for 8-bit images."""

from __future__ import annotations

import torch
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
    """:func:`composite` of uint8 images in [0, 255], computed in float32 and rounded to the nearest uint8."""
    blend = composite(foreground.float(), alpha.float() / 255, background.float())
    return blend.round_().clamp_(0, 255).to(torch.uint8)


def ping_pong(index: int, length: int) -> int:
    """Frame of a ``length``-frame clip shown at time ``index`` when it is played forth and back without end."""
    if length == 1:
        return 0
    phase = index % (2 * (length - 1))
    return phase if phase < length else 2 * (length - 1) - phase
