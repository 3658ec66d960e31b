"""MSE as a torchmetric."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.metrics.base import FrameMetric
from ptq4vm.metrics.functional.mse import mean_squared_error


class MSE(FrameMetric):
    """Mean over frames of ``1000 * mean (pred - true)^2``; see :func:`mean_squared_error`.

    Example:
        >>> import torch
        >>> metric = MSE()
        >>> metric.update(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4))
        >>> metric.compute().item()
        250.0
    """

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """MSE of every frame."""
        return mean_squared_error(pred, true, reduction="none")
