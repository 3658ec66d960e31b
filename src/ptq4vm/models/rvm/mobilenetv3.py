"""MobileNetV3-Large as RVM's encoder (Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1).

The last three blocks are dilated instead of strided, which keeps the deepest features at 1/16 of the input.
Parameters are named as torchvision names them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from ptq4vm.models.rvm.layers import ImageNetNormalize
from ptq4vm.ops.junction import Junction

Activation = Callable[[], nn.Module]

_batch_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)


class _Row(NamedTuple):
    """One inverted residual of the paper's table: kernel, widths, and what it is made of."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    activation: Activation
    stride: int = 1
    dilation: int = 1


_ROWS = (
    _Row(3, 16, 16, False, nn.ReLU),
    _Row(3, 64, 24, False, nn.ReLU, stride=2),
    _Row(3, 72, 24, False, nn.ReLU),
    _Row(5, 72, 40, True, nn.ReLU, stride=2),
    _Row(5, 120, 40, True, nn.ReLU),
    _Row(5, 120, 40, True, nn.ReLU),
    _Row(3, 240, 80, False, nn.Hardswish, stride=2),
    _Row(3, 200, 80, False, nn.Hardswish),
    _Row(3, 184, 80, False, nn.Hardswish),
    _Row(3, 184, 80, False, nn.Hardswish),
    _Row(3, 480, 112, True, nn.Hardswish),
    _Row(3, 672, 112, True, nn.Hardswish),
    _Row(5, 672, 160, True, nn.Hardswish, dilation=2),
    _Row(5, 960, 160, True, nn.Hardswish, dilation=2),
    _Row(5, 960, 160, True, nn.Hardswish, dilation=2),
)


def _conv_norm(
    inp: int, out: int, kernel: int, activation: Activation | None, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = (kernel - 1) // 2 * dilation
    conv = nn.Conv2d(inp, out, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(conv, _batch_norm(out), *([activation()] if activation else []))


def _nearest_multiple_of_8(width: float) -> int:
    """Round to a multiple of 8 that is no more than a tenth below ``width``, as the paper does for all widths."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


class SqueezeExcitation(nn.Module):
    """Channel gate ``x * hardsigmoid(fc2(relu(fc1(mean(x)))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _nearest_multiple_of_8(channels / 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.scale_activation = nn.Hardsigmoid()
        self.gated = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        gate = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.gated(x * self.scale_activation(gate))


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter depthwise, optionally gate, project back; skip where shapes agree."""

    def __init__(self, inp: int, row: _Row) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if row.expanded != inp:
            layers.append(_conv_norm(inp, row.expanded, 1, row.activation))
        layers.append(
            _conv_norm(
                row.expanded, row.expanded, row.kernel, row.activation, row.stride, row.dilation, groups=row.expanded
            )
        )
        if row.squeeze:
            layers.append(SqueezeExcitation(row.expanded))
        layers.append(_conv_norm(row.expanded, row.out, 1, None))
        self.block = nn.Sequential(*layers)
        self.has_skip = row.stride == 1 and inp == row.out
        self.out = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', ceil(H/stride), ceil(W/stride))``."""
        y = self.block(x)
        return self.out(x + y if self.has_skip else y)


class MobileNetV3Encoder(nn.Module):
    """Feature pyramid of MobileNetV3-Large."""

    channels = (16, 24, 40, 960)
    """Channels of the features at 1/2, 1/4, 1/8 and 1/16 of the input size."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = ImageNetNormalize()
        layers: list[nn.Module] = [_conv_norm(3, 16, 3, nn.Hardswish, stride=2)]
        width = 16
        for row in _ROWS:
            layers.append(InvertedResidual(width, row))
            width = row.out
        layers.append(_conv_norm(width, 6 * width, 1, nn.Hardswish))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(N, 3, H, W)`` in [0, 1] to the features at 1/2, 1/4, 1/8 and 1/16, with :attr:`channels` channels."""
        x = self.normalize(x)
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in (1, 3, 6, 16):
                taps.append(x)
        f1, f2, f3, f4 = taps
        return f1, f2, f3, f4
