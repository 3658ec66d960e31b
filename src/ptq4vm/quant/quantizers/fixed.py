"""Weights whose rounding is decided."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.quant.quantizers.base import WeightQuantizer


class FixedCodes(WeightQuantizer):
    """Codes that are decided for good: what a learned quantizer becomes, and what a checkpoint stores.

    Args:
        codes: ``(C_out, ...)`` int8.
        bits: 2 to 8.
        scale: ``(C_out,)`` or ``(1,)``, positive.
        factor, reduce_range: See :class:`WeightQuantizer`.
    """

    decided = True
    fixed: Tensor

    def __init__(
        self, codes: Tensor, bits: int, scale: Tensor, factor: Tensor | None = None, reduce_range: bool = False
    ) -> None:
        super().__init__(bits, scale, factor, reduce_range)
        self.register_buffer("fixed", codes.to(torch.int8))

    @classmethod
    def start(cls, weight: Tensor, like: WeightQuantizer) -> FixedCodes:
        """Decide what another rounding holds now; ``weight`` is the layer's float weight, ``(C_out, ...)``."""
        return cls(like.codes(weight), like.bits, like.scale, like.factor, like.reduce_range)

    def codes(self, weight: Tensor) -> Tensor:
        """The stored codes, int8; ``weight`` gives nothing but its shape."""
        return self.fixed
