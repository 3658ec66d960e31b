"""Errors over time: dtSSD, how far two alphas differ in how they change from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.metrics.functional.inputs import MEASURES, AlphaPair, FramePair, Reduction, reduce_frames, unit


@MEASURES.register("dtssd")
def _dtssd(pair: AlphaPair) -> Tensor:
    pred, true = pair.units
    error = pred - true
    if pair.previous is None:
        before = error.narrow(-4, 0, 1)  # the first frame has no past: it counts as 0
    else:
        before = (unit(pair.previous[0].to(pred.device)) - unit(pair.previous[1].to(pred.device))).unsqueeze(-4)
    change = torch.cat([before.to(error.dtype), error], dim=-4).diff(dim=-4)
    return change.square_().mean(dim=(-3, -2, -1)).double().sqrt() * 1e2


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
        DataError: The shapes differ or are not those above, a value is not in [0, 1], or ``previous`` is
            of another size.
        ConfigError: The reduction is unknown.

    Example:
        >>> import torch
        >>> from ptq4vm.metrics.functional import last_frames
        >>> true = torch.zeros(3, 1, 4, 4)
        >>> pred = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), torch.ones(1, 4, 4)])
        >>> dtssd_error(pred, true, reduction="none").tolist()
        [0.0, 100.0, 0.0]
        >>> previous = last_frames(pred[:1], true[:1])
        >>> dtssd_error(pred[1:], true[1:], previous, reduction="none").tolist()
        [100.0, 0.0]
    """
    return reduce_frames(_dtssd(AlphaPair(pred, true, previous)), reduction)
