"""The state that every matting metric keeps: a sum over frames and their number."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class FrameMetric(Metric):
    """Mean over frames of a value that each frame has. Lower is better; not differentiable; sums across processes.

    Subclasses give :meth:`per_frame`. Keyword arguments are those of :class:`torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    frames: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("frames", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """Value of every frame, ``(T,)`` or ``(B, T)``, of alphas ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``."""

    def update(self, pred: Tensor, true: Tensor) -> None:
        """Add frames: ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8. Raises ``DataError``."""
        values = self.per_frame(pred, true)
        self.total += values.sum().to(self.total.device)
        self.frames += values.numel()

    def compute(self) -> Tensor:
        """Mean over all frames so far, float64 scalar; NaN before the first."""
        return self.total / self.frames
