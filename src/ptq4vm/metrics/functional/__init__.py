"""Matting metrics as pure functions of tensors.

Conventions: alpha is ``(T, 1, H, W)`` for the frames of one clip or ``(B, T, 1, H, W)`` for several, uint8 in [0, 255]
or floating point in [0, 1]; prediction and truth share the shape and may differ in dtype. Every metric has one value a
frame, computed without gradient and given as float64. Lower is better.
Another metric enters as such a function; no network, file or clip is known here.
"""

from __future__ import annotations

from ptq4vm.metrics.functional.frames import frame_metrics
from ptq4vm.metrics.functional.inputs import FramePair, last_frames
from ptq4vm.metrics.functional.pixels import (
    foreground_squared_error,
    mean_absolute_difference,
    mean_squared_error,
    sum_absolute_difference,
)
from ptq4vm.metrics.functional.structure import connectivity_error, gradient_error, gradient_magnitude
from ptq4vm.metrics.functional.temporal import dtssd_error
from ptq4vm.metrics.table import FOREGROUND_METRIC, METRIC_NAMES, METRIC_SETS

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
