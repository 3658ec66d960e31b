"""Weights rounded to nearest: where every network begins."""

from __future__ import annotations

import torch
from torch import Tensor

from ptq4vm.quant.functional import quantize
from ptq4vm.quant.quantizers.base import WeightQuantizer
from ptq4vm.quant.registries import ROUNDINGS


@ROUNDINGS.register("nearest")
class Nearest(WeightQuantizer):
    """Every weight takes the code next to it; see :class:`WeightQuantizer` for the arguments."""

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes of ``weight``, same shape, int8."""
        return quantize(weight, self.step(weight), 0, self.quant_min, self.quant_max).to(torch.int8)
