"""DtSSD as a torchmetric that takes a clip in consecutive chunks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ptq4vm.metrics.base import FrameMetric
from ptq4vm.metrics.functional.dtssd import FramePair, dtssd_error, last_frames


class DTSSD(FrameMetric):
    """Mean over frames of dtSSD; see :func:`dtssd_error`.

    Each update continues the clip of the one before: call :meth:`start_clip` where another clip begins (keeps the
    mean so far) or :meth:`reset` (forgets it). The first frame of a clip counts as 0. A clip must not be split over
    processes; its sums may be.

    Example:
        >>> import torch
        >>> metric = DTSSD()
        >>> metric.update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
        >>> metric.update(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
        >>> metric.compute().item()
        50.0
        >>> metric.start_clip()
        >>> metric.update(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
        >>> metric.compute().item()
        25.0
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._previous: FramePair | None = None

    def start_clip(self) -> None:
        """Forget the previous frame: the next update begins another clip."""
        self._previous = None

    def reset(self) -> None:
        """Forget everything, the previous frame included."""
        super().reset()
        self.start_clip()

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """The dtSSD of every frame, given the frame before these."""
        return dtssd_error(pred, true, self._previous, reduction="none")

    def update(self, pred: Tensor, true: Tensor) -> None:
        """Add the clip's next frames, ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``. Raises ``DataError``."""
        super().update(pred, true)
        self._previous = last_frames(pred, true)

    def forward(self, pred: Tensor, true: Tensor) -> Tensor:
        """Add the clip's next frames and return their own mean.

        Torchmetrics would reset in between to find the batch's value, which would cut the clip; sums need no reset.
        """
        total, frames = self.total.clone(), self.frames.clone()
        self.update(pred, true)
        return (self.total - total) / (self.frames - frames)
