"""Weights that learn whether they round up or down."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptq4vm.quant.functional import dequantize
from ptq4vm.quant.quantizers.base import WeightQuantizer
from ptq4vm.quant.registries import ROUNDINGS


@ROUNDINGS.register("adaround")
class AdaRound(WeightQuantizer):
    """Learns for every weight whether it rounds up or down (Nagel et al., ICML 2020, eq. 21 to 24).

    ``w = s * clamp(floor(w / s) + h(V), quant_min, quant_max)`` with the rectified sigmoid
    ``h(V) = clamp(sigmoid(V) * 1.2 - 0.1, 0, 1)``. V starts where the dequantized weight equals the float weight.

    Args:
        weight: The layer's float weight, ``(C_out, ...)``.
        bits: 2 to 8.
        scale: ``(C_out,)`` or ``(1,)``, positive.
        factor, reduce_range: See :class:`WeightQuantizer`.
    """

    STRETCH = 1.2  # zeta - gamma of the paper, with zeta = 1.1 and gamma = -0.1
    floor: Tensor

    def __init__(
        self, weight: Tensor, bits: int, scale: Tensor, factor: Tensor | None = None, reduce_range: bool = False
    ) -> None:
        super().__init__(bits, scale, factor, reduce_range)
        ratio = weight.detach().float() / self.step(weight)
        floor = ratio.floor()
        self.register_buffer("floor", floor, persistent=False)
        sigmoid = ((ratio - floor) + 0.1) / self.STRETCH
        self.rounding = nn.Parameter(torch.log(sigmoid / (1 - sigmoid)))

    @classmethod
    def start(cls, weight: Tensor, like: WeightQuantizer) -> AdaRound:
        """Begin at the float weight ``(C_out, ...)`` on the grid of ``like``."""
        return cls(weight, like.bits, like.scale, like.factor, like.reduce_range)

    def soft(self) -> Tensor:
        """h(V): how far each weight is rounded up, in [0, 1], shape of the weight."""
        return (self.rounding.sigmoid() * self.STRETCH - 0.1).clamp(0, 1)

    def learned(self) -> list[nn.Parameter]:
        """The tensor V, one value for every weight."""
        return [self.rounding]

    def regularizer(self, beta: float) -> Tensor:
        """Sum of ``1 - |2h - 1|^beta`` (eq. 24): zero once every weight has decided. Scalar."""
        return (1 - (2 * self.soft() - 1).abs().pow(beta)).sum()

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes with the rounding decided, same shape, int8."""
        return (self.floor + (self.rounding.detach() >= 0)).clamp(self.quant_min, self.quant_max).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """The softly rounded weight while training, the decided one otherwise."""
        if not self.training:
            return super().forward(weight)
        soft = (self.floor + self.soft()).clamp(self.quant_min, self.quant_max)
        return dequantize(soft, self.step(weight)).to(weight.dtype)
