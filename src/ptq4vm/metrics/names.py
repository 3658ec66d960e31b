"""Which metrics there are: their names alone, for whoever reads or shows results without computing any."""

from __future__ import annotations

METRIC_NAMES = ("mad", "mse", "grad", "conn", "dtssd")
"""Every metric of a report, in the order in which tables show them. Lower is better for all."""
METRIC_SETS: dict[str, tuple[str, ...]] = {"lr": METRIC_NAMES, "hr": ("mad", "mse", "grad", "dtssd", "sad")}
"""What is measured of alpha at low (512x288) and at high resolution (1920x1080), where Conn would take too long."""
FOREGROUND_METRIC = "fgr_mse"
"""Measured besides where there is a true foreground; see :func:`ptq4vm.metrics.functional.foreground_squared_error`."""
