"""Binary convolutions, and the exchange of a float network's convolutions for them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ptq4vm.models.bivm.binarizers.base import BINARIZERS, Binarizer
from ptq4vm.models.bivm.exact import EXACT, ExactConv2d, affine_of

FLOAT = "none"
"""The binarizer that leaves everything in float: for a network's full-precision twin."""


class BinaryConv2d(nn.Module):
    """A convolution of binary inputs with binary weights: ``scale * conv(activation(x), signs(w)) + bias``.

    What is added at the edges is 0, which is no bit: an engine leaves these products out (or, for inputs of 0 and 1,
    takes the bit 0). The latent float weights are kept for training, until :meth:`decide` puts their signs there.

    Args:
        binarizer: How weights and inputs become binary.
        inp: Channels of the input.
        out: Channels of the result.
        kernel: Rows and columns of a filter.
        stride: Step of the filter.
        padding: Rows and columns added at every edge.
        dilation: Distance of the filter's taps.
        groups: Parts of the channels that are convolved by themselves.
        bias: Whether a bias is added.
        bare: Whether the input is binary already, so that there is no activation.
    """

    scale: Tensor | None

    def __init__(
        self,
        binarizer: Binarizer,
        inp: int,
        out: int,
        kernel: tuple[int, int] | int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        bare: bool = False,
    ) -> None:
        super().__init__()
        like = nn.Conv2d(inp, out, kernel, stride, padding, dilation, groups, bias)
        self.binarizer = binarizer
        self.in_channels, self.out_channels, self.groups = inp, out, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.activation = nn.Identity() if bare else binarizer.activation(inp)
        self.weight = nn.Parameter(like.weight.detach())
        self.bias = like.bias
        self.register_buffer("scale", None)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H', W')``."""
        weight = self.binarizer.signs(self.weight) if self.scale is None else self.weight
        scale = self.binarizer.scale(self.weight) if self.scale is None else self.scale
        y = F.conv2d(self.activation(x), weight, None, self.stride, self.padding, self.dilation, self.groups)
        y = y * scale.view(-1, 1, 1)  # after the sum, so that a sum of signs is exact
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    @property
    def decided(self) -> bool:
        """Whether the weights are signs and their factors are kept."""
        return self.scale is not None

    @torch.no_grad()
    def fold(self, norm: nn.BatchNorm2d) -> None:
        """Take the batch norm behind a decided convolution into its factors and its bias; see :meth:`decide`."""
        assert self.scale is not None
        factor, shift = (each.float() for each in affine_of(norm))
        bias = shift if self.bias is None else shift + factor * self.bias
        self.scale.mul_(factor.view_as(self.scale))
        self.bias = nn.Parameter(bias, requires_grad=False)

    @torch.no_grad()
    def decide(self) -> None:
        """Put the signs in the weights' place and keep their factors: what is stored and run from here on."""
        if not self.decided:
            scale, signs = self.binarizer.scale(self.weight).clone(), self.binarizer.signs(self.weight)
            self.scale = scale
            self.weight.copy_(signs)


class Convolutions:
    """What a network's builder asks for its convolutions and what stands around them, binary or in float.

    Args:
        binarizer: A name of :data:`BINARIZERS`, or ``none`` for a network in float.

    Raises:
        ConfigError: The name is unknown.
    """

    def __init__(self, binarizer: str) -> None:
        self.binarizer = None if binarizer == FLOAT else BINARIZERS[binarizer]()

    def conv(
        self,
        inp: int,
        out: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        bare: bool = False,
    ) -> nn.Module:
        """A convolution that keeps the size (or divides it by ``stride``), float or binary."""
        padding = kernel // 2 * dilation
        if self.binarizer is None:
            return nn.Conv2d(inp, out, kernel, stride, padding, dilation, bias=bias)
        return BinaryConv2d(self.binarizer, inp, out, kernel, stride, padding, dilation, bias=bias, bare=bare)

    def activation(self, channels: int) -> nn.Module:
        """What makes the input of several convolutions binary at once; nothing in float."""
        return nn.Identity() if self.binarizer is None else self.binarizer.activation(channels)

    def conv_norm(
        self, inp: int, out: int, kernel: int, stride: int = 1, dilation: int = 1, bare: bool = False
    ) -> nn.Sequential:
        """A convolution and its batch norm."""
        return nn.Sequential(self.conv(inp, out, kernel, stride, dilation, bare=bare), nn.BatchNorm2d(out))

    def nonlinearity(self, channels: int) -> nn.Module:
        """What stands after the norm: the binarizer's own, PReLU in float."""
        return nn.PReLU(channels) if self.binarizer is None else self.binarizer.nonlinearity(channels)

    def plain_nonlinearity(self, channels: int) -> nn.Module:
        """PReLU, or what the binarizer has in the place of a ReLU: what stands in the decoder."""
        return (self.binarizer and self.binarizer.instead_of_relu()) or nn.PReLU(channels)

    def exchange(self, network: nn.Module, keep: Collection[str] = ()) -> nn.Module:
        """Exchange the convolutions of a float network for binary ones, and the ReLUs behind them likewise.

        Args:
            network: Changed in place. A nonlinearity is one where it follows in the same ``nn.Sequential``.
            keep: Paths of convolutions that stay in float, and what follows them.
        """
        if self.binarizer is not None:
            _exchange(network, "", self.binarizer, keep)
        return network


def _exchange(module: nn.Module, prefix: str, binarizer: Binarizer, keep: Collection[str]) -> None:
    channels = 0
    for name, child in list(module.named_children()):
        path = f"{prefix}{name}"
        if isinstance(child, nn.Conv2d):
            channels = 0 if path in keep else child.out_channels
            if channels:
                module.register_module(name, _binary(child, binarizer))
        elif isinstance(child, (nn.ReLU, nn.Hardswish)) and isinstance(module, nn.Sequential) and channels:
            module.register_module(name, binarizer.instead_of_relu() or child)
        else:
            _exchange(child, f"{path}.", binarizer, keep)


def _binary(conv: nn.Conv2d, binarizer: Binarizer) -> BinaryConv2d:
    """A binary convolution of the same shape and the same latent weights."""
    kernel, stride = (conv.kernel_size[0], conv.kernel_size[1]), conv.stride[0]
    assert not isinstance(conv.padding, str)
    binary = BinaryConv2d(
        binarizer,
        conv.in_channels,
        conv.out_channels,
        kernel,
        stride,
        conv.padding[0],
        conv.dilation[0],
        conv.groups,
        conv.bias is not None,
    )
    binary.load_state_dict(conv.state_dict(), strict=False)
    return binary


def binary_layers(network: nn.Module) -> dict[str, BinaryConv2d]:
    """The binary convolutions of a network by path."""
    return {path: module for path, module in network.named_modules() if isinstance(module, BinaryConv2d)}


@torch.no_grad()
def decide(part: nn.Module, exact: bool = True) -> nn.Module:
    """Bring a part of a network into the form that is stored and run, in place; in eval mode.

    Signs take the place of latent weights, batch norms are folded into the factors and biases of the convolutions
    before them, and everything else computes as :mod:`ptq4vm.models.bivm.exact` says. What it computes stays the same
    up to rounding, and up to the signs that rounding flips.

    Args:
        part: The part, such as an encoder.
        exact: Whether its float convolutions are followed by signs, and so computed exactly.
    """
    for module in list(part.modules()):
        previous = ""
        for name, child in list(module.named_children()):
            if isinstance(child, BinaryConv2d):
                child.decide()
            elif isinstance(child, nn.BatchNorm2d):
                module.register_module(previous, _folded(module.get_submodule(previous), child))
                module.register_module(name, nn.Identity())
            elif isinstance(child, nn.Conv2d) and exact:
                module.register_module(name, ExactConv2d(child))
            elif type(child) in EXACT:
                module.register_module(name, EXACT[type(child)]())
            previous = name
    return part


def _folded(conv: nn.Module, norm: nn.BatchNorm2d) -> nn.Module:
    """A convolution of any kind that does what the batch norm behind it did."""
    if isinstance(conv, nn.Conv2d):
        return fuse_conv_bn_eval(conv, norm)
    assert isinstance(conv, (BinaryConv2d, ExactConv2d))
    conv.fold(norm)
    return conv
