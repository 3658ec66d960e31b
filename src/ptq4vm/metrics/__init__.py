"""Matting metrics: what each is called (:mod:`~ptq4vm.metrics.table`), pure functions of tensors
(:mod:`~ptq4vm.metrics.functional`) and torchmetrics (:mod:`~ptq4vm.metrics.classes`). Tensors and names enter; files,
clips and networks do not. Another metric is a function, its row in the table, and nothing outside this room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptq4vm.metrics.table import FOREGROUND_METRIC, METRIC_NAMES, METRIC_SETS, METRICS, MetricInfo
from ptq4vm.system.lazy import imported_late

if TYPE_CHECKING:
    from ptq4vm.metrics.classes import DTSSD, MAD, MSE, SAD, ConnectivityError, GradientError, MattingMetrics

__all__ = ["DTSSD", "MAD", "MSE", "SAD", "ConnectivityError", "GradientError", "MattingMetrics"]
__all__ += ["FOREGROUND_METRIC", "METRICS", "METRIC_NAMES", "METRIC_SETS", "MetricInfo"]


__getattr__ = imported_late(
    __name__,  # torchmetrics takes seconds, and most of ptq4vm wants names and functions
    {
        "ptq4vm.metrics.classes": (
            *("DTSSD", "MAD", "MSE", "SAD"),
            *("ConnectivityError", "GradientError", "MattingMetrics"),
        )
    },
)
