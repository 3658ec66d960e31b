"""DoReFa-Net at one bit (Zhou et al., 2016, sections 2.3 and 2.5)."""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.models.bivm.binarizers.base import BINARIZERS, Binarizer, SignActivation, binarize, clipped, straight


class UnitActivation(SignActivation):
    """``round(clamp(x + shift, 0, 1))``: values 0 and 1, straight through in [0, 1] and nowhere else (eq. 11).

    Args:
        channels: Channels of what it sees, dimension -3.
    """

    low = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels, clipped)

    def forward(self, x: Tensor) -> Tensor:
        """Floats ``(N, C, H, W)`` to 0 and 1 of the same shape; a half gives 1."""
        assert self.shift is not None
        # the sign of 2x - 1 has the slope 1 where x is in [0, 1]; half of it, plus a half, is 0 or 1
        return 0.5 * binarize(2 * (x + self.shift) - 1, self._slope) + 0.5


@BINARIZERS.register("dorefa")
class DoReFa(Binarizer):
    """Signs of weights with one factor a layer, straight through; activations 0 and 1.

    The shift of activations is not DoReFa's: the published size of RVM-DoReFa has room for one, and for no more (BiVM).
    """

    def signs(self, weight: Tensor) -> Tensor:
        """See :meth:`Binarizer.signs`."""
        return binarize(weight, straight)

    def scale(self, weight: Tensor) -> Tensor:
        """See :meth:`Binarizer.scale`: one mean for the whole layer (DoReFa's eq. 7), given for every filter."""
        mean = weight.detach().abs().mean().clamp(min=1e-8)
        return mean.expand(weight.shape[0], *[1] * (weight.ndim - 1))

    def activation(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.activation`."""
        return UnitActivation(channels)

    def nonlinearity(self, channels: int) -> nn.Module:
        """See :meth:`Binarizer.nonlinearity`."""
        return nn.PReLU(channels)
