"""Matting metrics as torchmetrics; :mod:`ptq4vm.metrics.functional` has them as functions."""

from __future__ import annotations

from ptq4vm.metrics.collection import MattingMetrics
from ptq4vm.metrics.connectivity import ConnectivityError
from ptq4vm.metrics.dtssd import DTSSD
from ptq4vm.metrics.functional.frames import FOREGROUND_METRIC, METRIC_NAMES, METRIC_SETS
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
