"""The range with the smallest squared quantization error."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.quant.functional import choose_qparams, search_scale, symmetric_range
from ptq4vm.quant.observers.base import JointObserver, Observer, SampleObserver
from ptq4vm.quant.observers.shared import SharedZeroObserver
from ptq4vm.quant.registries import OBSERVERS
from ptq4vm.quant.spec import ActivationSpec

CODES = 16
"""Codes of a grid up to which errors of clipping count as much as those of rounding."""


def weight_of_clipping(quant_max: int) -> float:
    """How much a squared error of clipping counts beside one of rounding, on a grid from code 0 to ``quant_max``.

    It is 1 up to 4 bits, 4 at 6 bits and 16 at 8. Errors of rounding differ from one pixel to the next and cancel in
    the layers behind; those of clipping are alike all over an edge or an object, and what a calibration clip shows in a
    few pixels may fill another film. The more codes there are, the less it costs to reach that far.
    """
    return max(1.0, (quant_max + 1) / CODES)


@OBSERVERS.register("mse")
class MSEObserver(SampleObserver):
    """Searches both ends of the range, so that rounding and clipping errors balance.

    Args:
        quant_max: Largest code of the grid that will be used; the smallest is 0.
        symmetric: Keep the zero point at 0 (non-negative data) or mid-grid.
        signed: Keep it mid-grid for all data; with ``symmetric``.
        steps: Candidates for each end.
        per_call: See :class:`SampleObserver`.
        seed: See :class:`SampleObserver`.
    """

    def __init__(
        self,
        quant_max: int,
        symmetric: bool = False,
        steps: int = 24,
        per_call: int = 16384,
        seed: int = 0,
        signed: bool = False,
    ) -> None:
        super().__init__(per_call, seed)
        self.quant_max = quant_max
        self.symmetric, self.signed = symmetric, signed
        self.steps = steps

    @classmethod
    def from_spec(cls, spec: ActivationSpec, seed: int) -> Observer:
        """Build one for the grid of the choices."""
        return cls(spec.code_range[1], symmetric=not spec.asymmetric, seed=seed, signed=spec.signed)

    @classmethod
    def joint(cls, spec: ActivationSpec, groups: int, seed: int, relative: bool) -> JointObserver | None:
        """Scales that share a zero point are searched for together with it.

        Those of single channels reach further (:func:`weight_of_clipping`): what is rare costs resolution in that
        channel alone, where a whole tensor would lose it in all of them.
        """
        return SharedZeroObserver(
            groups,
            spec.code_range[1],
            spec.asymmetric,
            seed=seed,
            relative=relative,
            own_zeros=spec.own_zeros,
            signed=spec.signed,
            clipped=weight_of_clipping(spec.code_range[1]) if spec.granularity == "channel" else 1.0,
        )

    def range(self) -> tuple[float, float]:
        """``(low, high)`` after a coarse search over both ends together and one over each end alone."""
        values = self.samples()
        shrink = torch.linspace(1.0, 1 / self.steps, self.steps)
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        if self.symmetric:
            low, high = symmetric_range(low, high, self.signed)
        best = self._best(values, low * shrink, high * shrink)
        low, high = low * shrink[best], high * shrink[best]
        if not self.symmetric:
            # 1 is among the factors: a search that finds nothing better keeps what it has
            wide = torch.cat([torch.ones(1), torch.linspace(0.3, 1.7, 2 * self.steps)])
            for _ in range(2):
                lows = (low * wide).clamp(min=self.low)
                low = lows[self._best(values, lows, high.expand_as(lows))]
                highs = (high * wide).clamp(max=self.high)
                high = highs[self._best(values, low.expand_as(highs), highs)]
        return float(low), float(high)

    def _best(self, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Number of the range with the least mean squared error, ``()``, among ``low``, ``high`` of shape ``(K,)``."""
        scale, zero = choose_qparams(low, high, 0, self.quant_max, self.symmetric, self.signed)
        return search_scale(values, scale, zero, 0, self.quant_max, shift_first=True)[0]
