"""Mean squared error (MSE) of alpha."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.metrics.functional._inputs import Reduction, check_alphas, reduce_frames, unit


def _mse_update(pred: Tensor, true: Tensor) -> Tensor:
    return (unit(pred) - unit(true)).square_().mean(dim=(-3, -2, -1)).double()


def _mse_compute(values: Tensor, reduction: Reduction) -> Tensor:
    return reduce_frames(values * 1e3, reduction)


def mean_squared_error(pred: Tensor, true: Tensor, reduction: Reduction = "mean") -> Tensor:
    """MSE of alpha, ``1000 * mean (pred - true)^2`` over the pixels of a frame.

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
        >>> mean_squared_error(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4)).item()
        250.0
    """
    check_alphas(pred, true)
    return _mse_compute(_mse_update(pred, true), reduction)
