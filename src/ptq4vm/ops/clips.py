"""Pure functions of decoded clips."""

from __future__ import annotations

import torch

from ptq4vm.types import Clip


def fitted(clip: Clip, size: tuple[int, int] | None) -> Clip:
    """The clip resized to ``(H, W)``, or as it is for ``None``."""
    if size is None or clip.frames.shape[-2:] == size:
        return clip
    frames, alpha = (
        torch.nn.functional.interpolate(x.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for x in (clip.frames, clip.alpha)
    )
    return Clip(clip.name, frames, alpha)
