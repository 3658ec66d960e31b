"""Small parts that the RVM modules share: clip-shaped tensors and the input normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def merge_time(x: Tensor) -> Tensor:
    """``(B, T, C, H, W)`` to ``(B*T, C, H, W)`` (a view where the layout allows); 4-D frames pass unchanged."""
    return x.flatten(0, 1) if x.ndim == 5 else x


def split_time(x: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`merge_time`: give ``x`` the leading dimensions of ``like``."""
    return x.unflatten(0, like.shape[:2]) if like.ndim == 5 else x


def concat_channels(*parts: Tensor) -> Tensor:
    """Concatenate frames or clips over channels.

    Clips are concatenated as 4-D tensors, since only those keep a channels-last layout through ``torch.cat``.
    """
    return split_time(torch.cat([merge_time(part) for part in parts], 1), parts[0])


def stack_time(frames: Sequence[Tensor]) -> Tensor:
    """Stack T frames ``(B, C, H, W)`` to ``(B, T, C, H, W)`` such that :func:`merge_time` is a view.

    Frames in channels-last layout stay so (``torch.stack`` alone would rewrite them as contiguous).
    """
    if all(frame.is_contiguous(memory_format=torch.channels_last) for frame in frames):
        return torch.stack([frame.permute(0, 2, 3, 1) for frame in frames], 1).permute(0, 1, 4, 2, 3)
    return torch.stack(list(frames), 1)


class ImageNetNormalize(nn.Module):
    """``(x - mean) / std`` per colour channel; out of place, and absent from the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Bring images ``(N, 3, H, W)`` in [0, 1] to zero mean and unit variance, as the encoders were trained on."""
        return (x - self.mean) / self.std
