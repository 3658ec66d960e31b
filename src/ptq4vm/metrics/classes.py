"""Matting metrics as torchmetrics, which take a clip in consecutive chunks and keep sums over frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ptq4vm.metrics.functional import (
    FramePair,
    connectivity_error,
    dtssd_error,
    gradient_error,
    last_frames,
    mean_absolute_difference,
    mean_squared_error,
    sum_absolute_difference,
)
from ptq4vm.metrics.table import METRIC_NAMES


class FrameMetric(Metric):
    """Mean over frames of a value that each frame has. Lower is better; not differentiable; sums across processes.

    Subclasses give :attr:`function`, or :meth:`per_frame` where a frame's value needs more than two alphas. Keyword
    arguments are those of :class:`torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    function: Callable[..., Tensor]
    """A function of :mod:`ptq4vm.metrics.functional`, as a ``staticmethod``."""

    total: Tensor
    frames: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("frames", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def per_frame(self, pred: Tensor, true: Tensor) -> Tensor:
        """Value of every frame, ``(T,)`` or ``(B, T)``, of alphas ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``."""
        return self.function(pred, true, reduction="none")

    def update(self, pred: Tensor, true: Tensor) -> None:
        """Add frames: ``(T, 1, H, W)`` or ``(B, T, 1, H, W)``, floating in [0, 1] or uint8. Raises ``DataError``."""
        values = self.per_frame(pred, true)
        self.total += values.sum().to(self.total.device)
        self.frames += values.numel()

    def compute(self) -> Tensor:
        """Mean over all frames so far, float64 scalar; NaN before the first."""
        return self.total / self.frames


class MAD(FrameMetric):
    """Mean over frames of ``1000 * mean |pred - true|``; see :func:`mean_absolute_difference`.

    Example:
        >>> import torch
        >>> metric = MAD()
        >>> metric.update(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4))
        >>> metric.compute().item()
        500.0
    """

    function = staticmethod(mean_absolute_difference)


class SAD(FrameMetric):
    """Mean over frames of ``sum |pred - true| / 1000``; see :func:`sum_absolute_difference`.

    Example:
        >>> import torch
        >>> SAD()(torch.ones(3, 1, 20, 50), torch.zeros(3, 1, 20, 50)).item()
        1.0
    """

    function = staticmethod(sum_absolute_difference)


class MSE(FrameMetric):
    """Mean over frames of ``1000 * mean (pred - true)^2``; see :func:`mean_squared_error`.

    Example:
        >>> import torch
        >>> MSE()(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 4, 4)).item()
        250.0
    """

    function = staticmethod(mean_squared_error)


class GradientError(FrameMetric):
    """Mean over frames of the gradient error; see :func:`gradient_error`.

    Args:
        sigma: Standard deviation of the Gaussian derivative in pixels, in (0, 39].
        kwargs: Keyword arguments of :class:`torchmetrics.Metric`.

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
        """Grad of every frame, ``(T,)`` or ``(B, T)``."""
        return gradient_error(pred, true, sigma=self.sigma, reduction="none")


class ConnectivityError(FrameMetric):
    """Mean over frames of the connectivity error; see :func:`connectivity_error`.

    Example:
        >>> import torch
        >>> metric = ConnectivityError()
        >>> metric.update(torch.ones(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
        >>> metric.compute().item()
        0.0
    """

    function = staticmethod(connectivity_error)


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
        """The dtSSD of every frame, ``(T,)`` or ``(B, T)``, given the frame before these."""
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


CLASSES: dict[str, type[FrameMetric]] = {
    "mad": MAD,
    "mse": MSE,
    "grad": GradientError,
    "conn": ConnectivityError,
    "dtssd": DTSSD,
    "sad": SAD,
}
"""Name of a metric to its class."""


class MattingMetrics(MetricCollection):
    """MAD, MSE, Grad, Conn and dtSSD, each the mean over the frames of a clip, given whole or in consecutive chunks.

    ``compute()`` returns ``{"mad", "mse", "grad", "conn", "dtssd"}``, float64 scalars. Call ``reset()`` between clips
    for one result a clip, or :meth:`start_clip` for the mean over the frames of several.

    Args:
        kwargs: Keyword arguments ``prefix`` and ``postfix`` of :class:`torchmetrics.MetricCollection`.

    Example:
        >>> import torch
        >>> metrics = MattingMetrics()
        >>> metrics.update(torch.full((2, 1, 8, 8), 0.5), torch.zeros(2, 1, 8, 8))
        >>> {name: value.item() for name, value in metrics.compute().items()}["mse"]
        250.0
    """

    def __init__(self, **kwargs: Any) -> None:
        # No compute groups: they merge metrics whose states happen to be equal after the first update, which for a
        # perfect first chunk is all of them.
        super().__init__(
            {name: CLASSES[name]() for name in METRIC_NAMES if name in CLASSES},
            compute_groups=False,
            **kwargs,
        )

    def start_clip(self) -> None:
        """The next update begins another clip; the means so far are kept."""
        for metric in self.values(copy_state=False):
            if isinstance(metric, DTSSD):
                metric.start_clip()
