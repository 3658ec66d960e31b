"""Matting metrics as pure functions."""

from __future__ import annotations

from ptq4vm.metrics.functional.conn import connectivity_error
from ptq4vm.metrics.functional.dtssd import FramePair, dtssd_error, last_frames
from ptq4vm.metrics.functional.foreground import foreground_squared_error
from ptq4vm.metrics.functional.frames import frame_metrics
from ptq4vm.metrics.functional.grad import gradient_error, gradient_magnitude
from ptq4vm.metrics.functional.mad import mean_absolute_difference, sum_absolute_difference
from ptq4vm.metrics.functional.mse import mean_squared_error
from ptq4vm.metrics.names import FOREGROUND_METRIC, METRIC_NAMES, METRIC_SETS

__all__ = [
    "FOREGROUND_METRIC",
    "METRIC_NAMES",
    "METRIC_SETS",
    "FramePair",
    "connectivity_error",
    "dtssd_error",
    "foreground_squared_error",
    "frame_metrics",
    "gradient_error",
    "gradient_magnitude",
    "last_frames",
    "mean_absolute_difference",
    "mean_squared_error",
    "sum_absolute_difference",
]
