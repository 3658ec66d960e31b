"""Named places for tensors that no layer gives out: sums, products, mixtures. Quantizers can be put there."""

from __future__ import annotations

from torch import nn


class Junction(nn.Identity):
    """The place of what arithmetic gives: the sum of a skip, a gated tensor, a recurrent state, a pooled image.

    It changes nothing and holds nothing. A network puts one wherever an integer engine would store such a tensor for
    layers to read, so that a quantizer can take its place.
    """


class Regrid(Junction):
    """The place of a tensor resampled from others: an engine rounds it to the codes of what it was made from."""


class Operand(Junction):
    """The place of a factor of a product of two activations, as attention has them: queries, keys, weights, values.

    No layer reads it, so no placement finds it by looking at layers: whatever the placement, a quantizer stands here.
    """
