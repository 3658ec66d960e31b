"""A range that leaves a small share of outliers out."""

from __future__ import annotations

import numpy as np

from ptq4vm.quant.observers.base import Observer, SampleObserver
from ptq4vm.quant.registries import OBSERVERS
from ptq4vm.quant.spec import ActivationSpec


@OBSERVERS.register("percentile")
class PercentileObserver(SampleObserver):
    """Covers a given share of the values.

    Args:
        percentile: Share inside the range, in (0.5, 1]; the rest is split between both ends.
        per_call: See :class:`SampleObserver`.
        seed: See :class:`SampleObserver`.
    """

    def __init__(self, percentile: float = 0.9999, per_call: int = 16384, seed: int = 0) -> None:
        super().__init__(per_call, seed)
        self.percentile = percentile

    @classmethod
    def from_spec(cls, spec: ActivationSpec, seed: int) -> Observer:
        """Build one for the share that the choices name."""
        return cls(spec.percentile, seed=seed)

    def range(self) -> tuple[float, float]:
        """``(low, high)`` between the two quantiles, extended to contain 0."""
        tail = (1 - self.percentile) / 2
        low, high = np.quantile(self.samples().numpy(), [tail, 1 - tail])
        return min(float(low), 0.0), max(float(high), 0.0)
