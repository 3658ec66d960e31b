"""ReActNet: thresholds and activations with learnable shifts (Liu et al., ECCV 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.models.bivm.binarizers.base import (
    BINARIZERS,
    Binarizer,
    RPReLU,
    SignActivation,
    binarize,
    clipped,
    polynomial,
)


@BINARIZERS.register("reactnet")
class ReActNet(Binarizer):
    """RSign before a convolution (eq. 4), RPReLU after it (eq. 5); weights as BNN's, with a factor a filter."""

    def signs(self, weight: Tensor) -> Tensor:
        """See :meth:`Binarizer.signs`."""
        return binarize(weight, clipped)

    def activation(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.activation`: the sign with a shift a channel."""
        return SignActivation(channels, polynomial)

    def nonlinearity(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.nonlinearity`."""
        return RPReLU(channels)
