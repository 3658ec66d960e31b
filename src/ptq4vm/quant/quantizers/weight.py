"""Weight quantizers: round to nearest, AdaRound, and fixed codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptq4vm.quant.spec import WeightSpec


def per_row(scale: Tensor, weight: Tensor) -> Tensor:
    """Scale ``(C_out,)`` or ``(1,)`` shaped to multiply a weight ``(C_out, ...)``."""
    return scale.view(-1, *[1] * (weight.ndim - 1))


def per_column(factor: Tensor, weight: Tensor) -> Tensor:
    """Factor ``(C_in,)`` shaped to multiply a weight ``(C_out, C_in, ...)``."""
    return factor.view(1, -1, *[1] * (weight.ndim - 2))


class WeightQuantizer(nn.Module):
    """Symmetric grid with one scale per output channel or per tensor; codes are rounded to nearest.

    Args:
        bits: 2 to 8.
        scale: ``(C_out,)`` or ``(1,)``, positive.
        factor: ``(C_in,)``, positive: scales of the input's channels that an engine leaves to the weight. What lies
            on the grid is the weight times its factor.
        reduce_range: See :class:`ptq4vm.quant.spec.WeightSpec`.
    """

    scale: Tensor
    factor: Tensor | None

    def __init__(self, bits: int, scale: Tensor, factor: Tensor | None = None, reduce_range: bool = False) -> None:
        super().__init__()
        self.bits, self.reduce_range = bits, reduce_range
        self.low, self.high = WeightSpec(bits, reduce_range=reduce_range).code_range
        self.register_buffer("scale", scale.detach().float().clone())
        self.register_buffer("factor", None if factor is None else factor.detach().float().clone())

    def step(self, weight: Tensor) -> Tensor:
        """Distance between neighbouring values of every weight, broadcastable to ``weight``'s shape."""
        step = per_row(self.scale, weight)
        return step if self.factor is None else step / per_column(self.factor, weight)

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes of ``weight``, same shape, int8."""
        return (weight.detach() / self.step(weight)).round().clamp(self.low, self.high).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """The dequantized weight, same shape and dtype."""
        return self.codes(weight).to(weight.dtype) * self.step(weight)

    def extra_repr(self) -> str:
        """Bits and number of scales."""
        return f"bits={self.bits}, scales={self.scale.numel()}"


class AdaRound(WeightQuantizer):
    """Learns for every weight whether it rounds up or down (Nagel et al., ICML 2020, eq. 21 to 24).

    ``w = s * clamp(floor(w / s) + h(V), low, high)`` with the rectified sigmoid
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

    def soft(self) -> Tensor:
        """h(V): how far each weight is rounded up, in [0, 1], shape of the weight."""
        return (self.rounding.sigmoid() * self.STRETCH - 0.1).clamp(0, 1)

    def regularizer(self, beta: float) -> Tensor:
        """Sum of ``1 - |2h - 1|^beta`` (eq. 24): zero once every weight has decided. Scalar."""
        return (1 - (2 * self.soft() - 1).abs().pow(beta)).sum()

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes with the rounding decided, same shape, int8."""
        return (self.floor + (self.rounding.detach() >= 0)).clamp(self.low, self.high).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """The softly rounded weight while training, the decided one otherwise."""
        if not self.training:
            return super().forward(weight)
        soft = (self.floor + self.soft()).clamp(self.low, self.high)
        return (soft * self.step(weight)).to(weight.dtype)


class FixedCodes(WeightQuantizer):
    """Codes that are decided for good: what a learned quantizer becomes, and what a checkpoint stores.

    Args:
        codes: ``(C_out, ...)`` int8.
        bits: 2 to 8.
        scale: ``(C_out,)`` or ``(1,)``, positive.
        factor, reduce_range: See :class:`WeightQuantizer`.
    """

    fixed: Tensor

    def __init__(
        self, codes: Tensor, bits: int, scale: Tensor, factor: Tensor | None = None, reduce_range: bool = False
    ) -> None:
        super().__init__(bits, scale, factor, reduce_range)
        self.register_buffer("fixed", codes.to(torch.int8))

    def codes(self, weight: Tensor) -> Tensor:
        """The stored codes, int8; ``weight`` gives nothing but its shape."""
        return self.fixed
