"""The range with the smallest squared quantization error."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.quant.observers.base import SampleObserver


def affine_qparams(low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Scale and integer zero point of an unsigned grid with ``levels + 1`` codes that covers ``[low, high]``.

    Args:
        low: Lower ends, <= 0, any shape.
        high: Upper ends, >= 0, same shape.
        levels: Largest code.

    Returns:
        ``scale`` (> 0) and ``zero_point`` (integer-valued, in ``[0, levels]``), same shape.
    """
    scale = ((high - low) / levels).clamp_min(1e-8)
    return scale, (-low / scale).round().clamp(0, levels)


class MSEObserver(SampleObserver):
    """Searches both ends of the range, so that rounding and clipping errors balance.

    Args:
        levels: Largest code of the grid that will be used.
        symmetric: Keep the zero point at 0 (non-negative data) or mid-grid.
        steps: Candidates for each end.
        per_call: See :class:`SampleObserver`.
        seed: See :class:`SampleObserver`.
    """

    def __init__(
        self, levels: int, symmetric: bool = False, steps: int = 24, per_call: int = 16384, seed: int = 0
    ) -> None:
        super().__init__(per_call, seed)
        self.levels = levels
        self.symmetric = symmetric
        self.steps = steps

    def _error(self, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Mean squared error of each candidate range: ``(K,)`` for ``low``, ``high`` of shape ``(K,)``."""
        scale, zero = affine_qparams(low, high, self.levels)
        if self.symmetric and self.low < 0:
            zero = torch.full_like(zero, (self.levels + 1) // 2)  # exactly halfway: not left to rounding
        errors = []
        for s, z in zip(scale, zero, strict=True):
            codes = (values / s + z).round_().clamp_(0, self.levels)
            errors.append(((codes - z) * s - values).square_().mean())
        return torch.stack(errors)

    def range(self) -> tuple[float, float]:
        """``(low, high)`` after a coarse search over both ends together and one over each end alone."""
        values = self.samples()
        shrink = torch.linspace(1.0, 1 / self.steps, self.steps)
        low, high = torch.tensor(self.low), torch.tensor(self.high)
        if self.symmetric and self.low < 0:
            high = torch.maximum(-low, high)
            low = -high
        best = self._error(values, low * shrink, high * shrink).argmin()
        low, high = low * shrink[best], high * shrink[best]
        if not self.symmetric:
            # 1 is among the factors: a search that finds nothing better keeps what it has
            wide = torch.cat([torch.ones(1), torch.linspace(0.3, 1.7, 2 * self.steps)])
            for _ in range(2):
                lows = (low * wide).clamp(min=self.low)
                low = lows[self._error(values, lows, high.expand_as(lows)).argmin()]
                highs = (high * wide).clamp(max=self.high)
                high = highs[self._error(values, low.expand_as(highs), highs).argmin()]
        return float(low), float(high)
