"""Pure functions of decoded clips."""

from __future__ import annotations

import torch

from ptq4vm.types import Clip


def fitted(clip: Clip, size: tuple[int, int] | None) -> Clip:
    """Resize the frames and alphas of a clip, bilinearly with antialiasing.

    Args:
        clip: Decoded clip, uint8.
        size: New ``(H, W)`` in pixels; ``None`` or the clip's own size gives back the clip itself.

    Returns:
        A clip of the same name without its foreground.
    """
    if size is None or clip.frames.shape[-2:] == size:
        return clip
    frames, alpha = (
        torch.nn.functional.interpolate(x.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for x in (clip.frames, clip.alpha)
    )
    return Clip(clip.name, frames, alpha)
