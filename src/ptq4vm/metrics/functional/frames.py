"""All metrics of consecutive frames at once, checked once: what an evaluation loop calls for every chunk."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ptq4vm.metrics.functional.inputs import MEASURES, AlphaPair, FramePair
from ptq4vm.metrics.functional.pixels import foreground_squared_error
from ptq4vm.metrics.table import FOREGROUND_METRIC, METRIC_NAMES


def frame_metrics(
    pred: Tensor,
    true: Tensor,
    previous: FramePair | None = None,
    names: Sequence[str] = METRIC_NAMES,
    colours: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Metrics of every frame.

    Args:
        pred: Predicted alpha, consecutive frames, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        previous: The frame before these when they continue a clip; see :func:`dtssd_error`.
        names: Names of the metrics of alpha, such as those of one of :data:`METRIC_SETS`.
        colours: Predicted and true foreground, ``(T, 3, H, W)`` or ``(B, T, 3, H, W)``: their error is measured too.

    Returns:
        ``{"mad", "mse", "grad", "conn", "dtssd"}``, or those asked for, and ``fgr_mse`` with ``colours``; each float64
        ``(T,)`` or ``(B, T)``.

    Raises:
        DataError: The shapes differ or are not those above, an alpha is not in [0, 1], or the frame before is of
            another size.
        ConfigError: There is no metric of one of the names.

    Example:
        >>> import torch
        >>> alpha = torch.rand(2, 1, 8, 8)
        >>> {name: value.tolist() for name, value in frame_metrics(alpha, alpha).items()}["mad"]
        [0.0, 0.0]
    """
    pair = AlphaPair(pred, true, previous)
    values = {name: MEASURES[name](pair) for name in names}
    if colours is not None:
        values[FOREGROUND_METRIC] = foreground_squared_error(*colours, true, reduction="none")
    return values
