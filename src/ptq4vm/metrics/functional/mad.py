"""Mean absolute difference (MAD) and sum of absolute differences (SAD)."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.metrics.functional._inputs import Reduction, check_alphas, reduce_frames, unit


def _mad_update(pred: Tensor, true: Tensor) -> Tensor:
    difference = (unit(pred) - unit(true)).abs_()
    return difference.mean(dim=(-3, -2, -1)).double()


def _mad_compute(values: Tensor, reduction: Reduction) -> Tensor:
    return reduce_frames(values * 1e3, reduction)


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
    check_alphas(pred, true)
    return _mad_compute(_mad_update(pred, true), reduction)


def _sad_update(pred: Tensor, true: Tensor) -> Tensor:
    return _mad_update(pred, true) * (pred.shape[-2] * pred.shape[-1])


def _sad_compute(values: Tensor, reduction: Reduction) -> Tensor:
    return reduce_frames(values / 1e3, reduction)


def sum_absolute_difference(pred: Tensor, true: Tensor, reduction: Reduction = "mean") -> Tensor:
    """SAD of alpha, ``sum |pred - true| / 1000`` over the pixels of a frame.

    Args:
        pred: Predicted alpha, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Returns:
        float64, at least 0: a scalar, or ``(T,)`` / ``(B, T)`` for ``none``.

    Raises:
        DataError: The shapes differ or are not those above, or a value is not in [0, 1].
        ConfigError: The reduction is unknown.

    Example:
        >>> import torch
        >>> sum_absolute_difference(torch.ones(3, 1, 20, 50), torch.zeros(3, 1, 20, 50)).item()
        1.0
    """
    check_alphas(pred, true)
    return _sad_compute(_sad_update(pred, true), reduction)
