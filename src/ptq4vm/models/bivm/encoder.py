"""BiVM's encoder of elastic binary blocks (EBB, section 3.2, eq. 9 to 13, table V).

The equations' text was not at hand where this was written, only what they are about and the table of channels. Where
they leave a choice, the docstring says which was made; ``docs/bivm.md`` lists all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from ptq4vm.models.bivm.exact import Halve
from ptq4vm.models.bivm.layers import Convolutions
from ptq4vm.models.rvm.layers import ImageNetNormalize

BLOCKS = (
    ((16, 32, 64, 32), 2),
    ((32, 64, 128, 64), 2),
    ((64, 64, 128, 64), 1),
    ((64, 128, 256, 128), 2),
    ((128, 128, 256, 128, 256, 1024), 1),
)
"""Channels through the sub-blocks of every block, and the stride of its second sub-block (table V)."""
_STRIDED = 1
_DILATION = 2  # of the last block, which stays at 1/16 of the input


def map_channels(x: Tensor, channels: int) -> Tensor:
    """Bring ``(N, C, H, W)`` to another number of channels without parameters: repeat them, or average equal parts.

    Args:
        x: Features whose channels divide ``channels`` or are divided by it.
        channels: Number of channels wanted.

    Raises:
        ValueError: Neither number divides the other.
    """
    have = x.shape[1]
    if channels % have == 0:
        return x if channels == have else torch.cat([x] * (channels // have), 1)
    if have % channels:
        raise ValueError(f"{have} channels cannot be split into, or repeated to, {channels}")
    parts = x.split(channels, 1)
    total = parts[0]
    for part in parts[1:]:  # one after the other: see ptq4vm.models.bivm.exact
        total = total + part
    return total * (1 / len(parts))


class Shortcut(nn.Module):
    """An elastic shortcut: ``y + coefficient * map(x)`` with one learnable coefficient a channel.

    Args:
        channels: Channels of the result.
        elastic: Whether the coefficient is learned; at 1 it is BiMatting's plain shortcut.
        start: Value of the coefficient before training. New shortcuts begin at 0, which leaves the network as it was.
    """

    def __init__(self, channels: int, elastic: bool, start: float = 1.0) -> None:
        super().__init__()
        self.channels = channels
        self.halve = Halve()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), start)) if elastic else None

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` ``(N, C, H, W)`` plus ``x`` of its size, or twice that, brought to its shape."""
        carried = map_channels(x if x.shape[-2:] == y.shape[-2:] else self.halve(x), self.channels)
        return y + (carried if self.coefficient is None else self.coefficient * carried)


class SubBlock(nn.Module):
    """A dense 3x3 and a dense 1x1 binary convolution, each normalised and with a shortcut around it.

    ``u = f(bn(conv3x3(x)) + a * x)`` and ``y = f(bn(conv1x1(u)) + b * u + c * x)``: layer-wise shortcuts with the
    coefficients ``a`` and ``b``, and the cross-layer one with ``c``, which only elastic blocks have.

    Args:
        make: Makes the convolutions.
        inp: Channels that come in.
        out: Channels that go out.
        stride: Step of the 3x3 convolution.
        dilation: Distance of its taps.
        elastic: Whether the shortcuts' coefficients are learned.
    """

    def __init__(
        self, make: Convolutions, inp: int, out: int, stride: int = 1, dilation: int = 1, elastic: bool = True
    ) -> None:
        super().__init__()
        self.wide = make.conv_norm(inp, inp, 3, stride, dilation)
        self.wide_shortcut = Shortcut(inp, elastic)
        self.wide_nonlinearity = make.nonlinearity(inp)
        self.point = make.conv_norm(inp, out, 1)
        self.point_shortcut = Shortcut(out, elastic)
        self.cross_shortcut = Shortcut(out, elastic, start=0.0) if elastic else None
        self.point_nonlinearity = make.nonlinearity(out)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, ceil(H/stride), ceil(W/stride))``."""
        u = self.wide_nonlinearity(self.wide_shortcut(self.wide(x), x))
        y = self.point_shortcut(self.point(u), u)
        if self.cross_shortcut is not None:
            y = self.cross_shortcut(y, x)
        z: Tensor = self.point_nonlinearity(y)
        return z


class ElasticBinaryBlock(nn.Module):
    """Sub-blocks in a row with a block-wise shortcut from the first one's result to the last one's.

    Args:
        make: Makes the convolutions.
        widths: Channels through the sub-blocks.
        stride: Step of the second sub-block.
        dilation: Distance of the taps of the 3x3 convolutions.
        elastic: Whether the shortcuts' coefficients are learned. Otherwise only a block that changes the size has a
            block-wise shortcut, as BiMatting's.
    """

    def __init__(
        self, make: Convolutions, widths: tuple[int, ...], stride: int, dilation: int = 1, elastic: bool = True
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SubBlock(make, inp, out, stride if number == _STRIDED else 1, dilation, elastic)
            for number, (inp, out) in enumerate(pairwise(widths))
        )
        whole = elastic or stride > 1
        self.shortcut = Shortcut(widths[-1], elastic, start=1.0 if stride > 1 else 0.0) if whole else None

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', ceil(H/stride), ceil(W/stride))``."""
        x = first = self.blocks[0](x)
        for block in list(self.blocks)[1:]:
            x = block(x)
        return x if self.shortcut is None else self.shortcut(x, first)


class ElasticBinaryEncoder(nn.Module):
    """A float 3x3 convolution with stride 2, then five blocks of binary ones.

    Args:
        make: Makes the convolutions.
        elastic: Whether the shortcuts' coefficients are learned: EBB; otherwise BiMatting's encoder.
    """

    channels = (16, 32, 64, 1024)
    """Channels of the features at 1/2, 1/4, 1/8 and 1/16 of the input size."""

    def __init__(self, make: Convolutions, elastic: bool = True) -> None:
        super().__init__()
        self.normalize = ImageNetNormalize()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.blocks = nn.ModuleList(
            ElasticBinaryBlock(make, widths, stride, _DILATION if widths[-1] == self.channels[3] else 1, elastic)
            for widths, stride in BLOCKS
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(N, 3, H, W)`` in [0, 1] to the features at 1/2, 1/4, 1/8 and 1/16, with :attr:`channels` channels."""
        f1 = x = self.first(self.normalize(x))
        taps = []
        for block in self.blocks:
            x = block(x)
            taps.append(x)
        return f1, taps[0], taps[2], taps[4]


def coefficients(network: nn.Module) -> Iterator[Tensor]:
    """The learnable coefficients of all elastic shortcuts of a network."""
    for module in network.modules():
        if isinstance(module, Shortcut) and module.coefficient is not None:
            yield module.coefficient


def elastic_penalty(network: nn.Module) -> Tensor:
    """Elastic regularization: the mean of ``|c| / 2 + c^2 / 2`` over all coefficients of elastic shortcuts.

    The first part takes shortcuts out that nothing needs, so that the topology evolves; the second keeps the others
    from growing. 0 for a network without any.
    """
    found = [c.flatten() for c in coefficients(network)]
    if not found:
        return torch.zeros(())
    every = torch.cat(found)
    return 0.5 * (every.abs() + every.square()).mean()
