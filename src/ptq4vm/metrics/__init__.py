"""Matting metrics as torchmetrics; :mod:`ptq4vm.metrics.functional` has them as functions.

Their names are there at once, the classes when they are first asked for: a report needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptq4vm.metrics.names import FOREGROUND_METRIC, METRIC_NAMES, METRIC_SETS
from ptq4vm.system.lazy import imported_late

if TYPE_CHECKING:
    from ptq4vm.metrics.collection import MattingMetrics
    from ptq4vm.metrics.connectivity import ConnectivityError
    from ptq4vm.metrics.dtssd import DTSSD
    from ptq4vm.metrics.gradient import GradientError
    from ptq4vm.metrics.mad import MAD, SAD
    from ptq4vm.metrics.mse import MSE

__all__ = [
    "DTSSD",
    "FOREGROUND_METRIC",
    "MAD",
    "METRIC_NAMES",
    "METRIC_SETS",
    "MSE",
    "SAD",
    "ConnectivityError",
    "GradientError",
    "MattingMetrics",
]

__getattr__ = imported_late(
    __name__,
    {
        "ptq4vm.metrics.collection": ("MattingMetrics",),
        "ptq4vm.metrics.connectivity": ("ConnectivityError",),
        "ptq4vm.metrics.dtssd": ("DTSSD",),
        "ptq4vm.metrics.gradient": ("GradientError",),
        "ptq4vm.metrics.mad": ("MAD", "SAD"),
        "ptq4vm.metrics.mse": ("MSE",),
    },
)
