"""BNN: plain signs (Hubara et al., "Binarized Neural Networks", NIPS 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.models.bivm.binarizers.base import BINARIZERS, Binarizer, SignActivation, binarize, clipped


@BINARIZERS.register("bnn")
class BNN(Binarizer):
    """Signs of weights and activations, gradients where their size is at most 1; nothing is learned besides weights."""

    def signs(self, weight: Tensor) -> Tensor:
        """See :meth:`Binarizer.signs`."""
        return binarize(weight, clipped)

    def activation(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.activation`: the sign alone."""
        return SignActivation(0, clipped)

    def nonlinearity(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.nonlinearity`: the hard tanh."""
        return nn.Hardtanh()

    def instead_of_relu(self) -> nn.Module:
        """See :meth:`Binarizer.instead_of_relu`: the hard tanh, since after a ReLU every sign would be 1."""
        return nn.Hardtanh()
