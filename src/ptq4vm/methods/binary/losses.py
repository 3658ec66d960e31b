"""Losses of matting as RVM is trained with them (Lin et al., WACV 2022, section 5), and the mimicking of BiVM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from kornia.geometry.transform import build_laplacian_pyramid
from torch import Tensor
from torch.nn import functional as F

LEVELS = 5
COHERENCE = 5.0
"""Weight of temporal coherence beside the errors themselves (eq. 6 and 9 of RVM)."""


def pyramid_loss(alpha: Tensor, target: Tensor, levels: int = LEVELS) -> Tensor:
    """Absolute error of the Laplacian pyramids, ``sum_s 2^s / levels * |L_s(alpha) - L_s(target)|`` with ``s`` from 0.

    Args:
        alpha: ``(N, 1, H, W)`` in [0, 1].
        target: The same shape.
        levels: Number of levels; fewer where a side is less than 2 pixels on one of them.
    """
    levels = max(1, min(levels, min(alpha.shape[-2:]).bit_length() - 1))
    pairs = zip(build_laplacian_pyramid(alpha, levels), build_laplacian_pyramid(target, levels), strict=True)
    return torch.stack([2.0**level * F.l1_loss(*pair) for level, pair in enumerate(pairs)]).sum() / levels


def coherence_loss(found: Tensor, target: Tensor) -> Tensor:
    """Squared error of the differences between consecutive frames; 0 for one frame.

    Args:
        found: ``(B, T, C, H, W)``.
        target: The same shape.
    """
    if found.shape[1] < 2:
        return found.new_zeros(())
    return F.mse_loss(found.diff(dim=1), target.diff(dim=1))


def alpha_loss(alpha: Tensor, target: Tensor) -> Tensor:
    """L1, pyramid and coherence of alphas ``(B, T, 1, H, W)`` in [0, 1]; RVM's eq. 4 to 6."""
    pyramid = pyramid_loss(alpha.flatten(0, 1), target.flatten(0, 1))
    return F.l1_loss(alpha, target) + pyramid + COHERENCE * coherence_loss(alpha, target)


def foreground_loss(foreground: Tensor, target: Tensor, alpha: Tensor) -> Tensor:
    """L1 and coherence of foregrounds ``(B, T, 3, H, W)`` where ``alpha`` ``(B, T, 1, H, W)`` is not 0; eq. 8 and 9."""
    where = (alpha > 0).to(foreground.dtype)
    foreground, target = foreground * where, target * where
    return F.l1_loss(foreground, target) + COHERENCE * coherence_loss(foreground, target)


def segmentation_loss(logits: Tensor, alpha: Tensor) -> Tensor:
    """Binary cross-entropy of ``logits`` ``(B, T, 1, h, w)`` against where ``alpha`` is more than a half.

    Args:
        logits: What the segmentation's projection gives.
        alpha: True alpha ``(B, T, 1, H, W)``, brought to the size of ``logits`` by averaging where it is larger.
    """
    small = F.interpolate(alpha.flatten(0, 1), size=logits.shape[-2:], mode="area")
    return F.binary_cross_entropy_with_logits(logits.flatten(0, 1), (small > 0.5).to(logits.dtype))


def mimicking_loss(features: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Localized binarization-aware mimicking (BiVM's eq. 20 and 21): directions of features, compared inside the mask.

    Every pixel's features are divided by their own length, since a binary network's have another size; the squared
    distance to the float network's is averaged over the pixels that the mask sets, and added up over the blocks.

    Args:
        features: ``(B, T, C_i, h_i, w_i)`` of the binary network's decoder blocks.
        targets: Those of the float network, same shapes.
        mask: ``(B*T, 1, h, w)`` of 0 and 1; brought to each size by nearest neighbours.
    """
    total = mask.new_zeros(())
    for found, wanted in zip(features, targets, strict=True):
        where = F.interpolate(mask, size=found.shape[-2:], mode="nearest")
        ours, theirs = (F.normalize(x.flatten(0, 1), dim=1) for x in (found, wanted))
        apart = (ours - theirs).square().sum(1, keepdim=True)
        total = total + (apart * where).sum() / where.sum().clamp(min=1)
    return total
