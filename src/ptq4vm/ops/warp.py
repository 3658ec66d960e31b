"""Backward warping by optical flow, with one convention from end to end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel coordinates ``(2, H, W)``, x then y, with the first pixel's centre at (0, 0), on ``like``'s device."""
    y = torch.arange(height, device=like.device, dtype=like.dtype)
    x = torch.arange(width, device=like.device, dtype=like.dtype)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows))


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample ``image`` at ``p + flow(p)``, bilinearly; what lies outside takes the nearest border pixel.

    Flow counts pixels between pixel centres. Grid and sampling both use ``align_corners=False``, over the image padded
    to powers of two: a coordinate is then normalised and restored without rounding, and zero flow gives back ``image``
    bit by bit.

    Args:
        image: ``(B, C, H, W)`` floating point.
        flow: ``(B, 2, H, W)`` floating point, pixels, x then y, on the grid of the result and pointing into ``image``.

    Returns:
        ``(B, C, H, W)`` of ``image``'s dtype. Differentiable in both arguments.

    Raises:
        ValueError: The shapes do not match.
    """
    if image.ndim != 4 or flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f"warp wants image (B, C, H, W), flow (B, 2, H, W); got {(*image.shape,)}, {(*flow.shape,)}")
    if image.shape[0] != flow.shape[0] or image.shape[2:] != flow.shape[2:]:
        raise ValueError(f"image {(*image.shape,)} and flow {(*flow.shape,)} differ in batch or in size")
    height, width = image.shape[2:]
    padded_height, padded_width = _power_of_two(height), _power_of_two(width)
    dtype = torch.promote_types(torch.promote_types(image.dtype, flow.dtype), torch.float32)
    flow = flow.to(dtype)
    target = flow + pixel_grid(height, width, flow)
    x = target[:, 0].clamp(0, width - 1)  # border padding, of the image rather than of its padding
    y = target[:, 1].clamp(0, height - 1)
    grid = torch.stack(((2 * x + 1) / padded_width - 1, (2 * y + 1) / padded_height - 1), dim=-1)
    padded = F.pad(image.to(dtype), (0, padded_width - width, 0, padded_height - height))
    sampled = F.grid_sample(padded, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.to(image.dtype)


def in_frame(flow: Tensor) -> Tensor:
    """Find the pixels whose ``p + flow(p)`` lies on the image.

    Args:
        flow: Flow in pixels, x then y, ``(B, 2, H, W)`` floating point.

    Returns:
        ``(B, 1, H, W)`` bool.
    """
    height, width = flow.shape[2:]
    target = flow + pixel_grid(height, width, flow)
    x, y = target[:, :1], target[:, 1:]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
