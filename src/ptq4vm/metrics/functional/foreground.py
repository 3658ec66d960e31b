"""Squared error of the predicted foreground colours where there is a foreground (foreground MSE)."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.metrics.functional._inputs import Reduction, reduce_frames, unit


def foreground_squared_error(pred: Tensor, true: Tensor, alpha: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Foreground MSE, ``1000 * mean (pred - true)^2`` over the channels of the pixels whose true alpha is above zero.

    A frame without such pixels counts as 0.

    Args:
        pred: Predicted colours, ``(T, 3, H, W)`` or ``(B, T, 3, H, W)``, floating in [0, 1] or uint8.
        true: True colours, same shape; the dtype may differ.
        alpha: True alpha, the same shape with one channel, floating in [0, 1] or uint8.
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Returns:
        float64 in [0, 1000]: a scalar, or ``(T,)`` / ``(B, T)`` for ``none``.

    Raises:
        DataError: The shapes do not match or are not those above.
        ConfigError: The reduction is unknown.

    Example:
        >>> import torch
        >>> alpha = torch.zeros(1, 1, 4, 4)
        >>> alpha[..., :2] = 0.1
        >>> foreground_squared_error(torch.ones(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5), alpha).item()
        250.0
    """
    if pred.shape != true.shape or pred.ndim not in (4, 5) or pred.shape[-3] != 3 or pred.numel() == 0:
        raise DataError(
            f"foreground of shape {tuple(pred.shape)} cannot be compared with truth of shape {tuple(true.shape)}; "
            "give both one shape (T, 3, H, W) or (B, T, 3, H, W)"
        )
    if alpha.shape != (*true.shape[:-3], 1, *true.shape[-2:]):
        raise DataError(f"true alpha of shape {tuple(alpha.shape)} does not fit foreground {tuple(true.shape)}")
    inside = (alpha > 0).to(torch.float32)
    error = (unit(pred) - unit(true)).square_().mul_(inside)
    pixels = inside.sum(dim=(-3, -2, -1)).double()
    return reduce_frames(error.sum(dim=(-3, -2, -1)).double() / (3 * pixels).clamp(min=1) * 1e3, reduction)
