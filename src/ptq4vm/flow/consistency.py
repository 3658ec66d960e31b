"""Occlusions from the disagreement of forward and backward flow."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.ops.warp import in_frame, warp


def visible_mask(backward: Tensor, forward: Tensor, alpha1: float = 0.01, alpha2: float = 0.5) -> Tensor:
    """Where a pixel of the later frame is also seen in the earlier one.

    With w_b the backward flow at p and w_f the forward flow where it leads, ``w_f = forward(p + w_b)``, the pixel is
    visible when both flows cancel (Sundaram et al., 2010, eq. 5)::

        |w_b + w_f|^2 < alpha1 (|w_b|^2 + |w_f|^2) + alpha2

    and ``p + w_b`` lies on the image.

    Args:
        backward: ``(N, 2, H, W)`` pixels, on the grid of the later frame.
        forward: ``(N, 2, H, W)`` pixels, on the grid of the earlier frame.
        alpha1: Tolerance relative to the motion's square.
        alpha2: Tolerance in square pixels.

    Returns:
        ``(N, 1, H, W)`` bool.
    """
    returned = warp(forward, backward)
    gap = (backward + returned).square().sum(1, keepdim=True)
    motion = backward.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    return (gap < alpha1 * motion + alpha2) & in_frame(backward)
