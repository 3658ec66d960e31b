"""Grad as a torchmetric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ptq4vm.metrics.base import FrameMetric
from ptq4vm.metrics.functional.grad import gradient_error


class GradientError(FrameMetric):
    """Mean over frames of the gradient error; see :func:`gradient_error`.

    Args:
        sigma: Standard deviation of the Gaussian derivative in pixels, in (0, 39].
        kwargs: Those of :class:`torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric, alpha = GradientError(), torch.rand(2, 1, 16, 16)
        >>> metric.update(alpha, alpha)
        >>> metric.compute().item()
        0.0
    """

    def __init__(self, sigma: float = 1.4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sigma = sigma

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """Grad of every frame."""
        return gradient_error(pred, true, sigma=self.sigma, reduction="none")
