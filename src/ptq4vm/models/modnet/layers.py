"""Parts of MODNet's branches: convolutions with two kinds of norms, the channel gate, resizing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.ops.junction import Junction, Regrid


class IBNorm(nn.Module):
    """Batch norm of the first half of the channels, instance norm of the others.

    It stays float: the mean of a frame cannot be folded into a convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = [channels // 2, channels - channels // 2]
        self.bnorm = nn.BatchNorm2d(self.sizes[0])
        self.inorm = nn.InstanceNorm2d(self.sizes[1])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        batch, instance = x.split(self.sizes, 1)
        return torch.cat([self.bnorm(batch), self.inorm(instance)], 1)


class Convolution(nn.Module):
    """A convolution that keeps the size or halves it, with norm and ReLU unless ``bare``."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int = 1, bare: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d(inp, out, kernel, stride, kernel // 2)
        self.layers = nn.Sequential(conv, *([] if bare else [IBNorm(out), nn.ReLU()]))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        return self.layers(x)


class SEBlock(nn.Module):
    """Channel gate ``x * sigmoid(fc(relu(fc(mean(x)))))``.

    Its linear layers are 1x1 convolutions, whose results have channels where all tensors have them.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = channels // reduction
        self.pool = nn.AdaptiveAvgPool2d(1)
        first, last = nn.Conv2d(channels, squeezed, 1, bias=False), nn.Conv2d(squeezed, channels, 1, bias=False)
        self.fc = nn.Sequential(first, nn.ReLU(), last, nn.Sigmoid())
        self.gated = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        return self.gated(x * self.fc(self.pool(x)))


class Resize(nn.Module):
    """Bilinear resizing by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.resized = Regrid()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, factor * H, factor * W)``."""
        return self.resized(F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False))
