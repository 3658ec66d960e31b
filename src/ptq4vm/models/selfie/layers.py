"""Parts of the selfie segmentation network: gates, inverted residuals, stages of the decoder.

Modules are defined in the order in which they run, by which the weights of the graph find them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.ops.junction import Junction, Regrid

Activation = Callable[[], nn.Module]


class Row(NamedTuple):
    """One inverted residual: kernel, widths, and what it is made of; ``squeezed`` is 0 where there is no gate."""

    kernel: int
    expanded: int
    out: int
    squeezed: int
    activation: Activation
    stride: int = 1


class SamePadding(nn.Module):
    """Zeros around a picture such that a strided convolution halves its size, as TensorFlow pads.

    Where they are odd in number, the one more is below and on the right; :class:`torch.nn.Conv2d` cannot say so.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        before = (kernel - stride) // 2
        self.sizes = (before, kernel - stride - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` of even H and W to what the convolution reads."""
        return F.pad(x, self.sizes)


class Convolution(nn.Sequential):
    """A convolution with a bias, padded as TensorFlow does, and its activation function."""

    def __init__(
        self, inp: int, out: int, kernel: int, activation: Activation | None = None, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        if stride > 1:
            self.add_module("pad", SamePadding(kernel, stride))
        padding = 0 if stride > 1 else kernel // 2
        self.add_module("conv", nn.Conv2d(inp, out, kernel, stride, padding, groups=groups))
        if activation is not None:
            self.add_module("act", activation())


class Gate(nn.Module):
    """How much of every channel shall pass: ``sigmoid(fc2(relu(fc1(mean))))``."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, *parts: Tensor) -> Tensor:
        """Tensors ``(N, C, ?, ?)``, whose means are added, to ``(N, C, 1, 1)`` in [0, 1]."""
        mean = self.pool(parts[0])
        for part in parts[1:]:
            mean = mean + self.pool(part)
        return self.gate(self.fc2(self.act(self.fc1(mean))))


class Inverted(nn.Module):
    """An inverted residual (Howard et al., "Searching for MobileNetV3", ICCV 2019), gated where the row says so."""

    def __init__(self, inp: int, row: Row) -> None:
        super().__init__()
        self.expand = Convolution(inp, row.expanded, 1, row.activation)
        self.depthwise = Convolution(row.expanded, row.expanded, row.kernel, row.activation, row.stride, row.expanded)
        self.squeeze = Gate(row.expanded, row.squeezed) if row.squeezed else None
        self.gated = Junction()
        self.project = nn.Conv2d(row.expanded, row.out, 1)
        self.adds = row.stride == 1 and inp == row.out
        self.result = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        y = self.depthwise(self.expand(x))
        if self.squeeze is not None:
            y = self.gated(y * self.squeeze(y))
        y = self.project(y)
        return self.result(y + x if self.adds else y)


class Descriptor(nn.Module):
    """What the decoder begins with: features, gated by their mean (LR-ASPP)."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.features = nn.Conv2d(inp, out, 1)
        self.weights = nn.Conv2d(inp, out, 1)
        self.act = nn.ReLU()
        self.gate = nn.Sigmoid()
        self.gated = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, H, W)``."""
        return self.gated(self.act(self.features(x)) * self.gate(self.weights(self.pool(x))))


class Stage(nn.Module):
    """One scale of the decoder: what comes from below is enlarged and joins the gated skip.

    The graph enlarges before its 1x1 convolution, and gates by the mean of skip and enlarged. Both are the same the
    other way round, since the weights of bilinear resizing add up to 1 and twice the size keeps the mean; a quarter of
    the work is left (ONNX Runtime: 1.9 instead of 2.7 ms for the whole network).
    """

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.bring = nn.Conv2d(inp, out, 1)
        self.brought = Junction()
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.upsampled = Regrid()
        self.squeeze = Gate(out, out)
        self.joined = Junction()
        self.mix = Convolution(out, out, 1, nn.ReLU)
        self.depthwise = Convolution(out, out, 3, nn.ReLU, groups=out)
        self.result = Junction()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(N, inp, H, W)`` and a skip ``(N, out, 2 H, 2 W)`` to the shape of the skip."""
        small = self.brought(self.bring(x))
        y = self.mix(self.joined(skip * self.squeeze(skip, small) + self.upsampled(self.upsample(small))))
        return self.result(y + self.depthwise(y))


class Shuffled(nn.Module):
    """The graph's transposed 2x2 convolution to one channel: a 1x1 convolution to four, laid out side by side."""

    def __init__(self, inp: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, 4, 1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to alpha ``(N, 1, 2 H, 2 W)`` in [0, 1]."""
        return torch.sigmoid(self.shuffle(self.conv(x)))  # no module: alpha is no gate, and not to be quantized
