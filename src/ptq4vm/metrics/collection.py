"""The five metrics of video matting under their names in reports."""

from __future__ import annotations

from typing import Any

from torchmetrics import MetricCollection

from ptq4vm.metrics.connectivity import ConnectivityError
from ptq4vm.metrics.dtssd import DTSSD
from ptq4vm.metrics.gradient import GradientError
from ptq4vm.metrics.mad import MAD
from ptq4vm.metrics.mse import MSE


class MattingMetrics(MetricCollection):
    """MAD, MSE, Grad, Conn and dtSSD, each the mean over the frames of a clip, given whole or in consecutive chunks.

    ``compute()`` returns ``{"mad", "mse", "grad", "conn", "dtssd"}``, float64 scalars. Call ``reset()`` between clips
    for one result a clip, or :meth:`start_clip` for the mean over the frames of several.

    Args:
        kwargs: ``prefix`` and ``postfix`` of :class:`torchmetrics.MetricCollection`.

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
            {
                "mad": MAD(),
                "mse": MSE(),
                "grad": GradientError(),
                "conn": ConnectivityError(),
                "dtssd": DTSSD(),
            },
            compute_groups=False,
            **kwargs,
        )

    def start_clip(self) -> None:
        """The next update begins another clip; the means so far are kept."""
        for metric in self.values(copy_state=False):
            if isinstance(metric, DTSSD):
                metric.start_clip()
