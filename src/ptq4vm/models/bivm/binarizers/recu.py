"""ReCU: weights that hardly ever change sign are brought back to life (Xu et al., ICCV 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptq4vm.models.bivm.binarizers.base import BINARIZERS, Binarizer, SignActivation, binarize, polynomial, straight

_FIRST, _LAST = 0.85, 0.99


@BINARIZERS.register("recu")
class ReCU(Binarizer):
    """The rectified clamp: weights, standardised by filter, are clamped to their quantiles ``1 - tau`` and ``tau``.

    ``tau`` grows from 0.85 to 0.99 with training (section 3.4). Gradients do not reach weights beyond the quantiles;
    they come back by the standardisation. The shift of activations is as in BiVM's comparison.
    """

    def __init__(self) -> None:
        self.tau = _FIRST

    def signs(self, weight: Tensor) -> Tensor:
        """See :meth:`Binarizer.signs`."""
        return binarize(self.rectified(weight), straight)

    def scale(self, weight: Tensor) -> Tensor:
        """See :meth:`Binarizer.scale`: of the clamped weights."""
        return super().scale(self.rectified(weight))

    def rectified(self, weight: Tensor) -> Tensor:
        """Weights ``(C_out, ...)`` with mean 0 and deviation 1 in every filter, clamped to the quantiles (eq. 9)."""
        flat = weight.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True, unbiased=False) + 1e-8)
        ends = torch.quantile(flat.detach(), flat.new_tensor([1 - self.tau, self.tau]), 1).unsqueeze(-1)
        return flat.clamp(ends[0], ends[1]).view_as(weight)

    def activation(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.activation`."""
        return SignActivation(channels, polynomial)

    def nonlinearity(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.nonlinearity`."""
        return nn.PReLU(channels)

    def advance(self, progress: float) -> None:
        """See :meth:`Binarizer.advance`."""
        self.tau = _FIRST + (_LAST - _FIRST) * min(max(progress, 0.0), 1.0)
