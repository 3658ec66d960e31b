"""Random masks for QDrop."""

from __future__ import annotations

import torch
from torch import Tensor


def random_keep(like: Tensor, probability: float) -> Tensor:
    """Boolean mask of ``like``'s shape, device and layout, True with the given probability (to 1/256).

    One 64-bit draw serves eight elements: drawing a float for each costs more than the convolution that follows.
    """
    count = like.numel()
    draws = torch.empty((count + 7) // 8, dtype=torch.int64, device=like.device).random_(-(2**63), None)
    limit = round(probability * 256)
    mask = draws.view(torch.uint8)[:count] < min(limit, 255)
    if limit > 255:  # as a byte it would wrap around to 0
        mask = torch.ones_like(mask)
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        b, c, h, w = like.shape
        return mask.view(b, h, w, c).permute(0, 3, 1, 2)
    return mask.view(like.shape)
