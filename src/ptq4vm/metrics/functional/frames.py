"""All five metrics of consecutive frames at once, checked once: what an evaluation loop calls for every chunk."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.metrics.functional._inputs import check_alphas, unit
from ptq4vm.metrics.functional.conn import _conn_compute, _conn_update
from ptq4vm.metrics.functional.dtssd import FramePair, _check_previous, _dtssd_compute, _dtssd_update
from ptq4vm.metrics.functional.grad import _grad_compute, _grad_update
from ptq4vm.metrics.functional.mad import _mad_compute, _mad_update
from ptq4vm.metrics.functional.mse import _mse_compute, _mse_update

METRIC_NAMES = ("mad", "mse", "grad", "conn", "dtssd")
"""Every metric of a report, in the order in which tables show them. Lower is better for all."""


def frame_metrics(pred: Tensor, true: Tensor, previous: FramePair | None = None) -> dict[str, Tensor]:
    """MAD, MSE, Grad, Conn and dtSSD of every frame.

    Args:
        pred: Predicted alpha, consecutive frames, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8.
        true: True alpha, same shape; its dtype may differ.
        previous: The frame before these when they continue a clip; see :func:`dtssd_error`.

    Returns:
        ``{"mad", "mse", "grad", "conn", "dtssd"}``, float64 ``(T,)`` or ``(B, T)`` each.

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
    p, t = unit(pred), unit(true)  # once for the three that want floats; the other two are faster on bytes
    return {
        "mad": _mad_compute(_mad_update(p, t), "none"),
        "mse": _mse_compute(_mse_update(p, t), "none"),
        "grad": _grad_compute(_grad_update(pred, true), "none"),
        "conn": _conn_compute(_conn_update(pred, true), "none"),
        "dtssd": _dtssd_compute(_dtssd_update(p, t, previous), "none"),
    }
