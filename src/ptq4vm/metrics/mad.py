"""MAD and SAD as torchmetrics."""

from __future__ import annotations

from torch import Tensor

from ptq4vm.metrics.base import FrameMetric
from ptq4vm.metrics.functional.mad import mean_absolute_difference, sum_absolute_difference


class MAD(FrameMetric):
    """Mean over frames of ``1000 * mean |pred - true|``; see :func:`mean_absolute_difference`.

    Example:
        >>> import torch
        >>> metric = MAD()
        >>> metric.update(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4))
        >>> metric.compute().item()
        500.0
    """

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """MAD of every frame."""
        return mean_absolute_difference(pred, true, reduction="none")


class SAD(FrameMetric):
    """Mean over frames of ``sum |pred - true| / 1000``; see :func:`sum_absolute_difference`.

    Example:
        >>> import torch
        >>> metric = SAD()
        >>> metric.update(torch.ones(3, 1, 20, 50), torch.zeros(3, 1, 20, 50))
        >>> metric.compute().item()
        1.0
    """

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """SAD of every frame."""
        return sum_absolute_difference(pred, true, reduction="none")
