"""Errors of pixels one by one: MAD, SAD and MSE of alpha, and the squared error of the foreground's colours."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.metrics.functional.inputs import MEASURES, AlphaPair, Reduction, reduce_frames, unit

_PIXELS = (-3, -2, -1)


def _mean_difference(pair: AlphaPair) -> Tensor:
    pred, true = pair.units
    return (pred - true).abs_().mean(dim=_PIXELS).double()


@MEASURES.register("mad")
def _mad(pair: AlphaPair) -> Tensor:
    return _mean_difference(pair) * 1e3


@MEASURES.register("sad")
def _sad(pair: AlphaPair) -> Tensor:
    return _mean_difference(pair) * (pair.pred.shape[-2] * pair.pred.shape[-1]) / 1e3


@MEASURES.register("mse")
def _mse(pair: AlphaPair) -> Tensor:
    pred, true = pair.units
    return (pred - true).square_().mean(dim=_PIXELS).double() * 1e3


def mean_absolute_difference(pred: Tensor, true: Tensor, reduction: Reduction = "mean") -> Tensor:
    """MAD of alpha, ``1000 * mean |pred - true|`` over the pixels of a frame.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Returns:
        float64 in [0, 1000]: a scalar, or ``(T,)`` / ``(B, T)`` for ``none``.

    Raises:
        DataError: The shapes differ or are not those above, or a value is not in [0, 1].
        ConfigError: The reduction is unknown.

    Example:
        >>> import torch
        >>> true = torch.zeros(2, 1, 4, 4)
        >>> pred = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.5)])
        >>> mean_absolute_difference(pred, true).item()
        250.0
        >>> mean_absolute_difference(pred, true, reduction="none").tolist()
        [0.0, 500.0]
    """
    return reduce_frames(_mad(AlphaPair(pred, true)), reduction)


def sum_absolute_difference(pred: Tensor, true: Tensor, reduction: Reduction = "mean") -> Tensor:
    """SAD of alpha, ``sum |pred - true| / 1000`` over the pixels of a frame.

    Values are float64 and at least 0; shapes and errors are those of :func:`mean_absolute_difference`.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Example:
        >>> import torch
        >>> sum_absolute_difference(torch.ones(3, 1, 20, 50), torch.zeros(3, 1, 20, 50)).item()
        1.0
    """
    return reduce_frames(_sad(AlphaPair(pred, true)), reduction)


def mean_squared_error(pred: Tensor, true: Tensor, reduction: Reduction = "mean") -> Tensor:
    """MSE of alpha, ``1000 * mean (pred - true)^2`` over the pixels of a frame.

    A few large errors weigh more than in MAD. Values are float64 in [0, 1000], a scalar or one a frame; what is raised
    is that of :func:`mean_absolute_difference`.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Example:
        >>> from torch import full, zeros
        >>> mean_squared_error(full((2, 1, 4, 4), 0.5), zeros(2, 1, 4, 4), reduction="none").tolist()
        [250.0, 250.0]
    """
    return reduce_frames(_mse(AlphaPair(pred, true)), reduction)


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
    pixels = inside.sum(dim=_PIXELS).double()
    return reduce_frames(error.sum(dim=_PIXELS).double() / (3 * pixels).clamp(min=1) * 1e3, reduction)
