"""Temporal error (dtSSD) of alpha: how far two alphas differ in how they change from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.metrics.functional._inputs import Reduction, check_alphas, reduce_frames, unit

FramePair = tuple[Tensor, Tensor]
"""Predicted and true alpha of the frame before a chunk, ``(1, H, W)`` or ``(B, 1, H, W)`` each."""


def last_frames(pred: Tensor, true: Tensor) -> FramePair:
    """The pair to hand to the next chunk as ``previous``; copies, so that the chunk itself can be freed."""
    return pred.detach().select(-4, -1).clone(), true.detach().select(-4, -1).clone()


def _check_previous(previous: FramePair | None, pred: Tensor) -> None:
    expected = (*pred.shape[:-4], *pred.shape[-3:])
    for frame in previous or ():
        if frame.shape != expected:
            raise DataError(
                f"previous frame of shape {tuple(frame.shape)} does not continue in a chunk of shape "
                f"{tuple(pred.shape)}; it must be {expected}: reset at the start of a clip"
            )


def _dtssd_update(pred: Tensor, true: Tensor, previous: FramePair | None = None) -> Tensor:
    error = unit(pred) - unit(true)
    if previous is None:
        before = error.narrow(-4, 0, 1)  # the first frame has no past: it counts as 0
    else:
        before = (unit(previous[0].to(pred.device)) - unit(previous[1].to(pred.device))).unsqueeze(-4)
    change = torch.cat([before.to(error.dtype), error], dim=-4).diff(dim=-4)
    return change.square_().mean(dim=(-3, -2, -1)).double().sqrt()


def _dtssd_compute(values: Tensor, reduction: Reduction) -> Tensor:
    return reduce_frames(values * 1e2, reduction)


def dtssd_error(pred: Tensor, true: Tensor, previous: FramePair | None = None, reduction: Reduction = "mean") -> Tensor:
    """dtSSD of alpha, ``100 * sqrt(mean ((p_t - p_{t-1}) - (a_t - a_{t-1}))^2)`` over the pixels of a frame.

    The first frame of a clip counts as 0 in the mean, as in the evaluation of Robust Video Matting.

    Args:
        pred: Predicted alpha, consecutive frames, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        previous: The frame before these when they continue a clip (:func:`last_frames` of the chunk before).
        reduction: ``mean`` or ``sum`` over all frames, or ``none`` for one value a frame.

    Returns:
        float64 in [0, 200]: a scalar, or ``(T,)`` / ``(B, T)`` for ``none``.

    Raises:
        DataError: The shapes differ or are not those above, or a value is not in [0, 1].
        ConfigError: The reduction is unknown.

    Example:
        >>> import torch
        >>> true = torch.zeros(3, 1, 4, 4)
        >>> pred = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), torch.ones(1, 4, 4)])
        >>> dtssd_error(pred, true, reduction="none").tolist()
        [0.0, 100.0, 0.0]
        >>> previous = last_frames(pred[:1], true[:1])
        >>> dtssd_error(pred[1:], true[1:], previous, reduction="none").tolist()
        [100.0, 0.0]
    """
    check_alphas(pred, true)
    _check_previous(previous, pred)
    return _dtssd_compute(_dtssd_update(pred, true, previous), reduction)
