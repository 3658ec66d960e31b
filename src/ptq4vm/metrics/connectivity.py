"""Conn as a torchmetric."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.metrics.base import FrameMetric
from ptq4vm.metrics.functional.conn import connectivity_error


class ConnectivityError(FrameMetric):
    """Mean over frames of the connectivity error; see :func:`connectivity_error`.

    Example:
        >>> import torch
        >>> metric, alpha = ConnectivityError(), torch.rand(2, 1, 16, 16)
        >>> metric.update(alpha, alpha)
        >>> metric.compute().item()
        0.0
    """

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """Conn of every frame."""
        return connectivity_error(pred, true, reduction="none")
