"""Weights whose codes move while the whole network learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptq4vm.quant.functional import dequantize, fake_quantize
from ptq4vm.quant.quantizers.base import WeightQuantizer
from ptq4vm.quant.registries import ROUNDINGS


@ROUNDINGS.register("free")
class FreeCodes(WeightQuantizer):
    """Codes that gradients move, as if rounding were the identity (straight-through; Bengio et al., 2013).

    What learns is a float number for every weight, in units of its code. It starts in the middle of the code that the
    weight has, so that nothing changes but where the loss pulls the same way for a while.

    Args:
        codes: ``(C_out, ...)``, the codes to begin with.
        bits: 2 to 8.
        scale: ``(C_out,)`` or ``(1,)``, positive.
        factor, reduce_range: See :class:`WeightQuantizer`.
    """

    one: Tensor
    zero: Tensor

    def __init__(
        self, codes: Tensor, bits: int, scale: Tensor, factor: Tensor | None = None, reduce_range: bool = False
    ) -> None:
        super().__init__(bits, scale, factor, reduce_range)
        self.latent = nn.Parameter(codes.detach().float())
        self.register_buffer("one", torch.ones(1, device=codes.device), persistent=False)
        self.register_buffer("zero", torch.zeros(1, device=codes.device), persistent=False)

    @classmethod
    def start(cls, weight: Tensor, like: WeightQuantizer) -> FreeCodes:
        """Begin at the codes that another rounding gives the layer's float weight ``(C_out, ...)``."""
        return cls(like.codes(weight), like.bits, like.scale, like.factor, like.reduce_range)

    def learned(self) -> list[nn.Parameter]:
        """The latent codes, one for every weight."""
        return [self.latent]

    def codes(self, weight: Tensor) -> Tensor:
        """The latent codes rounded, int8; ``weight`` gives nothing but its shape."""
        return self.latent.detach().round().clamp(self.quant_min, self.quant_max).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """The dequantized weight; its gradient reaches the latent codes that are not beyond the grid."""
        rounded = fake_quantize(self.latent, self.one, self.zero, self.quant_min, self.quant_max)
        return dequantize(rounded, self.step(weight)).to(weight.dtype)
