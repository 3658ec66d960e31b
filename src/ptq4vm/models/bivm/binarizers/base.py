"""What every binarizer says: signs of weights and activations forward, and the slope that stands for them backward.

The sign has no useful derivative, so that each method puts a surrogate in its place. Forward it is always the exact
sign, with ``sign(0) = 1``, so that a value is one bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ptq4vm.system.registry import Registry

Slope = Callable[[Tensor], Tensor]
"""Derivative that stands for the sign's: from what was binarized to a factor of the same shape."""


def straight(x: Tensor) -> Tensor:
    """1 everywhere: the plain straight-through estimator."""
    return torch.ones_like(x)


def clipped(x: Tensor) -> Tensor:
    """1 in [-1, 1], else 0: the straight-through estimator of BNN (Hubara et al., NIPS 2016, eq. 4)."""
    return (x.abs() <= 1).to(x.dtype)


def polynomial(x: Tensor) -> Tensor:
    """``2 - 2|x|`` in [-1, 1], else 0: the piecewise polynomial of Bi-Real Net (Liu et al., ECCV 2018, eq. 6)."""
    return (2 - 2 * x.abs()).clamp(min=0)


class _Sign(torch.autograd.Function):
    """The sign forward, a slope of the user's choice backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Slope) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return _signs(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * ctx.slope(x), None


def _signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def binarize(x: Tensor, slope: Slope) -> Tensor:
    """-1 where ``x`` is negative and 1 elsewhere, of any shape; its gradient is multiplied by ``slope(x)``."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return _signs(x)  # plain operations, which any exporter knows
    signs: Tensor = _Sign.apply(x, slope)
    return signs


class SignActivation(nn.Module):
    """``sign(x + shift)``, values -1 and 1, with a learnable shift for every channel or none.

    Args:
        channels: Channels of what it sees, dimension -3; 0 for no shift.
        slope: Stands for the derivative of the sign.
    """

    low = -1.0
    """What the cleared bit stands for; the set one stands for 1."""

    def __init__(self, channels: int, slope: Slope) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1)) if channels else None
        self._slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Floats ``(N, C, H, W)`` to -1 and 1 of the same shape."""
        return binarize(x if self.shift is None else x + self.shift, self._slope)


class RPReLU(nn.Module):
    """ReActNet's ``prelu(x - before) + after`` with learnable shifts (Liu et al., ECCV 2020, eq. 5).

    Args:
        channels: Channels of what it sees, dimension 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(channels, 1, 1))
        self.prelu = nn.PReLU(channels)
        self.after = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        y: Tensor = self.prelu(x - self.before) + self.after
        return y


class Binarizer(ABC):
    """What tells one way of binarization from another. Made without arguments; holds no parameters itself."""

    @abstractmethod
    def signs(self, weight: Tensor) -> Tensor:
        """Weights ``(C_out, ...)`` as -1 and 1 of the same shape, with the method's own gradient."""

    def scale(self, weight: Tensor) -> Tensor:
        """Scaling factor of every filter, the mean of its ``|w|`` (BiVM's eq. 3): ``(C_out, 1, ...)``, all positive.

        No gradient flows through it.
        """
        mean = weight.detach().abs().mean(tuple(range(1, weight.ndim)), keepdim=True)
        return mean.clamp(min=1e-8)  # a filter of zeros would end all that comes after it

    @abstractmethod
    def activation(self, channels: int) -> nn.Module:
        """What makes the input of a convolution binary.

        Args:
            channels: Channels of that input.
        """

    @abstractmethod
    def nonlinearity(self, channels: int) -> nn.Module:
        """What stands after the normalisation of a binary convolution.

        Args:
            channels: Channels that it sees.
        """

    def instead_of_relu(self) -> nn.Module | None:
        """What takes the place of a float network's own nonlinearities; ``None`` leaves them: a shift can follow."""
        return None

    def advance(self, progress: float) -> None:  # noqa: B027 - most have no schedule
        """Tell how much of training is over, from 0 to 1; changes nothing unless overridden."""


BINARIZERS: Registry[type[Binarizer]] = Registry("binarizer", "ptq4vm.models.bivm.binarizers")
"""Classes by the name that ``model.arguments.binarizer`` gives; packages add theirs by ``ptq4vm.binarizers``."""
