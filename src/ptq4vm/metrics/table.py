"""One description for each metric: its name, its title, when it is measured and how it is written.

Everything that lists metrics (evaluations, ``metrics.json``, tables, the report) reads this table. It needs no torch,
because a report wants titles without a tensor; the function of a metric is registered under its name in
:mod:`ptq4vm.metrics.functional`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricInfo:
    """The description of a metric: everything but its function. Lower is better for every metric.

    Attributes:
        name: Key in ``metrics.json``, lower case.
        title: Heading in tables.
        sets: Names of the sets that measure it: ``lr`` (512x288) and ``hr`` (1920x1080). A metric of ``lr`` is a
            column of every table.
        decimals: Digits behind the point in tables.
        required: Whether a ``metrics.json`` of such a set without it is damaged. A metric that is new must not be
            required: files of before do not have it.
    """

    name: str
    title: str
    sets: tuple[str, ...] = ()
    decimals: int = 2
    required: bool = False

    def text(self, value: float | None) -> str:
        """A value as a table shows it, such as ``15.75``; empty for ``None``."""
        return "" if value is None else f"{value:.{self.decimals}f}"


FOREGROUND_METRIC = "fgr_mse"
"""Metric of the foreground's colours, measured besides where the true ones are known."""

METRICS = {
    metric.name: metric
    for metric in (
        MetricInfo("mad", "MAD", ("lr", "hr"), required=True),
        MetricInfo("mse", "MSE", ("lr", "hr"), required=True),
        MetricInfo("grad", "Grad", ("lr", "hr"), required=True),
        MetricInfo("conn", "Conn", ("lr",), required=True),  # takes too long at high resolution
        MetricInfo("dtssd", "dtSSD", ("lr", "hr"), required=True),
        MetricInfo("sad", "SAD", ("hr",), required=True),
        MetricInfo(FOREGROUND_METRIC, "Fgr MSE"),
    )
}
"""Name of a metric to its description, in the order of files and tables."""

METRIC_SETS: dict[str, tuple[str, ...]] = {
    each: tuple(name for name, metric in METRICS.items() if each in metric.sets) for each in ("lr", "hr")
}
"""What is measured of alpha at low (512x288) and at high resolution (1920x1080)."""

METRIC_NAMES = METRIC_SETS["lr"]
"""Every metric of a report, in the order in which tables show them."""


def required_metrics(found: Container[str]) -> tuple[str, ...]:
    """Names of the metrics that a measurement must have.

    Args:
        found: Names of the metrics that it has. They tell its set: one that only ``hr`` measures makes it ``hr``, all
            else is ``lr``.
    """
    high = any(name in found for name in METRIC_SETS["hr"] if name not in METRIC_NAMES)
    return tuple(name for name in METRIC_SETS["hr" if high else "lr"] if METRICS[name].required)
