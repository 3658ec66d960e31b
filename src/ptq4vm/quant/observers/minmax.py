"""The full observed range."""

from __future__ import annotations

from ptq4vm.quant.observers.base import SampleObserver
from ptq4vm.quant.registries import OBSERVERS


@OBSERVERS.register("minmax")
class MinMaxObserver(SampleObserver):
    """Covers everything that was seen, outliers included."""

    def range(self) -> tuple[float, float]:
        """``(low, high)``: the extremes, extended to contain 0."""
        self.samples()
        return self.low, self.high
