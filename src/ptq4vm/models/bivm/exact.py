"""Arithmetic that gives the same floats wherever it is done, since a binary network forgives nothing.

A value that comes out 1e-7 smaller can be on the other side of a threshold; its sign flips, and a frame later so does
much of the matte (27/255 of mean alpha in a network of 16 steps of training). So what a binary network computes before
its last sign is defined here down to the order of operations: sums of signs are whole numbers; scales, shifts and
mixtures are single float32 multiplications and additions, which no compiler may join; sums of many floats are taken in
float64 and rounded once, so that their order does not matter but once in 10^9 values. An engine that does the same
(``target=bits``) then agrees with PyTorch on every sign.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FLAT = 4.97
"""Where the continued fraction of :func:`tanh` reaches 1."""


def halve(x: Tensor) -> Tensor:
    """Mean over 2x2 pixels, ``(N, C, H, W)`` to half of that, rounded up; an odd last row or column is its own mean."""
    height, width = (int(edge) for edge in x.shape[-2:])  # numbers also where the network is traced
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    return ((top[..., 0::2] + top[..., 1::2]) + (bottom[..., 0::2] + bottom[..., 1::2])) * 0.25


def double(x: Tensor) -> Tensor:
    """Bilinear enlargement ``(N, C, H, W)`` to twice the size, pixel centres at halves, edges repeated; rows first."""
    return _doubled(_doubled(x, 2), 3)


def _doubled(x: Tensor, dim: int) -> Tensor:
    last = x.shape[dim] - 1
    before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, last)], dim)
    after = torch.cat([x.narrow(dim, 1, last), x.narrow(dim, last, 1)], dim)
    near = x * 0.75
    pair = torch.stack([near + before * 0.25, near + after * 0.25], dim + 1)
    return pair.flatten(dim, dim + 1)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent by Lambert's continued fraction, cut after its seventh term: 1e-4 off at most. Any shape."""
    x = x.clamp(-_FLAT, _FLAT)
    square = x * x
    above = ((square + 378.0) * square + 17325.0) * square + 135135.0
    below = ((square * 28.0 + 3150.0) * square + 62370.0) * square + 135135.0
    return (x * above / below).clamp(-1.0, 1.0)


def sigmoid(x: Tensor) -> Tensor:
    """``tanh(x / 2) / 2 + 1 / 2`` with :func:`tanh`, of any shape."""
    return tanh(x * 0.5) * 0.5 + 0.5


def mean(x: Tensor) -> Tensor:
    """Mean over rows and columns in float64, rounded to float32: ``(N, C, H, W)`` to ``(N, C, 1, 1)``."""
    return x.double().mean((2, 3), keepdim=True).to(x.dtype)


class Double(nn.Module):
    """:func:`double` as a module: what takes the place of ``nn.Upsample(scale_factor=2, mode="bilinear")``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to twice the size."""
        return double(x)


class Halve(nn.Module):
    """:func:`halve` as a module: what takes the place of ``nn.AvgPool2d(2, 2)`` that rounds sizes up."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to half the size."""
        return halve(x)


class Tanh(nn.Module):
    """:func:`tanh` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape to the same shape."""
        return tanh(x)


class Sigmoid(nn.Module):
    """:func:`sigmoid` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape to the same shape."""
        return sigmoid(x)


class Mean(nn.Module):
    """:func:`mean` as a module: what takes the place of ``nn.AdaptiveAvgPool2d(1)``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, 1, 1)``."""
        return mean(x)


class Hardsigmoid(nn.Module):
    """``clamp(x / 6 + 1 / 2, 0, 1)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape to the same shape."""
        return (x * (1 / 6) + 0.5).clamp(0.0, 1.0)


class Hardswish(nn.Module):
    """``x * hardsigmoid(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape to the same shape."""
        return x * (x * (1 / 6) + 0.5).clamp(0.0, 1.0)


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift ``(C,)`` float64 that a batch norm applies in eval mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return factor, norm.bias.double() - factor * norm.running_mean.double()


class ExactConv2d(nn.Module):
    """A float convolution whose sums are taken in float64.

    Args:
        conv: The convolution whose weights are taken over.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels

    @torch.no_grad()
    def fold(self, norm: nn.BatchNorm2d) -> None:
        """Take the batch norm behind the convolution into its weights and its bias, in eval mode."""
        factor, shift = affine_of(norm)
        bias = shift if self.bias is None else shift + factor * self.bias.double()
        self.weight = nn.Parameter((self.weight.double() * factor.view(-1, 1, 1, 1)).float(), requires_grad=False)
        self.bias = nn.Parameter(bias.float(), requires_grad=False)

    def in_float(self) -> nn.Conv2d:
        """The convolution summed in float32, for engines that know no other."""
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        conv = nn.Conv2d(self.in_channels, self.out_channels, self.weight.shape[2:], *geometry, self.bias is not None)  # type: ignore[arg-type]
        conv.weight, conv.bias = self.weight, self.bias
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H', W')``."""
        bias = None if self.bias is None else self.bias.double()
        y = F.conv2d(
            x.double(),
            self.weight.double(),
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
        return y.to(x.dtype)


EXACT = {
    nn.Upsample: Double,
    nn.AvgPool2d: Halve,
    nn.AdaptiveAvgPool2d: Mean,
    nn.Tanh: Tanh,
    nn.Sigmoid: Sigmoid,
    nn.Hardsigmoid: Hardsigmoid,
    nn.Hardswish: Hardswish,
}
"""What takes the place of PyTorch's modules in a decided network."""
