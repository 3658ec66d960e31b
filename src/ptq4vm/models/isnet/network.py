"""IS-Net (Qin et al., "Highly Accurate Dichotomous Image Segmentation", ECCV 2022), for pictures of any subject.

A U-Net whose every stage is a small U-Net itself (U^2-Net). Batch norms are folded into the convolutions, as in the
published graph, and of the six side outputs only the finest is computed: alpha is made of it alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import FrameMatting
from ptq4vm.ops.junction import Junction, Regrid

SIZE = 1024
"""Rows and columns of the picture for which the weights were trained, pixels."""
_MEAN, _STD = 128 / 255, 256 / 255
_SMALLEST = 32


class Row(NamedTuple):
    """One stage: how many convolutions deep, its widths, and whether it dilates instead of pooling."""

    depth: int
    inp: int
    middle: int
    out: int
    flat: bool = False


_DOWN = (
    Row(7, 64, 32, 64),
    Row(6, 64, 32, 128),
    Row(5, 128, 64, 256),
    Row(4, 256, 128, 512),
    Row(4, 512, 256, 512, flat=True),
    Row(4, 512, 256, 512, flat=True),
)
_UP = {
    5: Row(4, 1024, 256, 512, flat=True),
    4: Row(4, 1024, 128, 256),
    3: Row(5, 512, 64, 128),
    2: Row(6, 256, 32, 64),
    1: Row(7, 128, 16, 64),
}


class Unit(nn.Sequential):
    """A 3x3 convolution and a ReLU."""

    def __init__(self, inp: int, out: int, dilation: int = 1) -> None:
        super().__init__()
        self.add_module("conv_s1", nn.Conv2d(inp, out, 3, padding=dilation, dilation=dilation))
        self.add_module("relu_s1", nn.ReLU())


class Enlarge(nn.Module):
    """Bilinear resizing to the size of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.upsampled = Regrid()

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """``(N, C, h, w)`` to ``(N, C, H, W)`` where ``like`` is ``(N, D, H, W)``."""
        size = (like.shape[-2], like.shape[-1])
        if size == (2 * x.shape[-2], 2 * x.shape[-1]):  # a factor says more to who exports it than a size
            return self.upsampled(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        return self.upsampled(F.interpolate(x, size, mode="bilinear", align_corners=False))


class Stage(nn.Module):
    """A residual U-block: convolutions that go down and up again inside, and the first one's result added."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.depth, self.flat = row.depth, row.flat
        self.rebnconvin = Unit(row.inp, row.out)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        for number in range(1, row.depth + 1):
            dilation = 2 ** (number - 1) if row.flat else 2 if number == row.depth else 1
            self.add_module(f"rebnconv{number}", Unit(row.out if number == 1 else row.middle, row.middle, dilation))
        for number in range(row.depth - 1, 0, -1):
            out = row.out if number == 1 else row.middle
            dilation = 2 ** (number - 1) if row.flat else 1
            self.add_module(f"rebnconv{number}d", Unit(2 * row.middle, out, dilation))
        self.enlarge = nn.ModuleList(Enlarge() for _ in range(0 if row.flat else row.depth - 2))
        self.result = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, H, W)``."""
        first = self.rebnconvin(x)
        y, skips = first, []
        for number in range(1, self.depth + 1):
            if not self.flat and 1 < number < self.depth:
                y = self.pool(y)
            y = self.get_submodule(f"rebnconv{number}")(y)
            skips.append(y)
        skips.pop()
        for number in range(self.depth - 1, 0, -1):
            skip = skips.pop()
            if not self.flat and number < self.depth - 1:
                y = self.enlarge[number - 1](y, skip)
            y = self.get_submodule(f"rebnconv{number}d")(torch.cat([y, skip], 1))
        return self.result(y + first)


class ISNet(FrameMatting):
    """The segmentation network, for frames ``(B, 3, H, W)`` and clips ``(B, T, 3, H, W)`` of any size.

    It sees every frame alone, resized to its own size, and gives alpha only: the foreground is the frame itself. Every
    stage, ``conv_in`` and ``side1`` are called once in a forward pass. Names are those of the published graph.

    Args:
        size: Rows and columns of the picture at which it runs, pixels.

    Raises:
        ConfigError: The size is none.
    """

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        if not isinstance(size, int) or size < _SMALLEST:
            raise ConfigError(f"size={size!r} of isnet: use a number of pixels from {_SMALLEST} up")
        self.size = size
        self.image = Junction()
        self.conv_in = nn.Conv2d(3, _DOWN[0].inp, 3, 2, 1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        for number, row in enumerate(_DOWN, 1):
            self.add_module(f"stage{number}", Stage(row))
        for number, row in _UP.items():
            self.add_module(f"stage{number}d", Stage(row))
        self.enlarge = nn.ModuleList(Enlarge() for _ in _UP)
        self.embedded = Junction()
        self.side1 = nn.Conv2d(_UP[1].out, 1, 3, padding=1)

    def own_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`FrameMatting.own_size`: a square."""
        return self.size, self.size

    def alpha(self, image: Tensor) -> Tensor:
        """See :meth:`FrameMatting.alpha`."""
        x = self.embedded(self.conv_in(self.image((image - _MEAN) / _STD)))
        skips = []
        for number in range(1, len(_DOWN) + 1):
            x = self.get_submodule(f"stage{number}")(x if number == 1 else self.pool(x))
            skips.append(x)
        skips.pop()
        for number in _UP:
            skip = skips.pop()
            x = self.get_submodule(f"stage{number}d")(torch.cat([self.enlarge[number - 1](x, skip), skip], 1))
        logits = F.interpolate(self.side1(x), (image.shape[-2], image.shape[-1]), mode="bilinear", align_corners=False)
        return torch.sigmoid(logits)  # no module: alpha is no gate, and not to be quantized
