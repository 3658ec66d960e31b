"""All metrics of consecutive frames at once, checked once: what an evaluation loop calls for every chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ptq4vm.metrics.functional._inputs import check_alphas, unit
from ptq4vm.metrics.functional.conn import _conn_compute, _conn_update
from ptq4vm.metrics.functional.dtssd import FramePair, _check_previous, _dtssd_compute, _dtssd_update
from ptq4vm.metrics.functional.grad import _grad_compute, _grad_update
from ptq4vm.metrics.functional.mad import _mad_compute, _mad_update, _sad_compute, _sad_update
from ptq4vm.metrics.functional.mse import _mse_compute, _mse_update
from ptq4vm.metrics.names import METRIC_NAMES


def frame_metrics(
    pred: Tensor, true: Tensor, previous: FramePair | None = None, names: Sequence[str] = METRIC_NAMES
) -> dict[str, Tensor]:
    """Metrics of alpha of every frame.

    Args:
        pred: Predicted alpha, consecutive frames, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        previous: The frame before these when they continue a clip; see :func:`dtssd_error`.
        names: Which; those of one of :data:`METRIC_SETS`.

    Returns:
        ``{"mad", "mse", "grad", "conn", "dtssd"}``, or those asked for, float64 ``(T,)`` or ``(B, T)`` each.

    Raises:
        DataError: The shapes differ or are not those above, or a value is not in [0, 1].

    Example:
        >>> import torch
        >>> alpha = torch.rand(2, 1, 8, 8)
        >>> {name: value.tolist() for name, value in frame_metrics(alpha, alpha).items()}["mad"]
        [0.0, 0.0]
    """
    check_alphas(pred, true)
    _check_previous(previous, pred)
    p, t = unit(pred), unit(true)  # once for those that want floats; the other two are faster on bytes
    compute: dict[str, Callable[[], Tensor]] = {
        "mad": lambda: _mad_compute(_mad_update(p, t), "none"),
        "mse": lambda: _mse_compute(_mse_update(p, t), "none"),
        "grad": lambda: _grad_compute(_grad_update(pred, true), "none"),
        "conn": lambda: _conn_compute(_conn_update(pred, true), "none"),
        "dtssd": lambda: _dtssd_compute(_dtssd_update(p, t, previous), "none"),
        "sad": lambda: _sad_compute(_sad_update(p, t), "none"),
    }
    return {name: compute[name]() for name in names}
