"""MobileNetV2 as MODNet's encoder (Sandler et al., "MobileNetV2", CVPR 2018, table 2), down to 1/32 of the picture."""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.ops.junction import Junction

CHANNELS = (16, 24, 32, 96, 1280)
"""Of the features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture."""
_ENDS = (1, 3, 6, 13, 18)
"""Numbers of the blocks whose results these features are."""
_FIRST = 32
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repetitions and stride of the first."""


def _unit(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU6()]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with the input added where the shapes allow."""

    def __init__(self, inp: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inp * expansion
        expand = _unit(inp, hidden, 1) if expansion > 1 else []
        project = [nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*expand, *_unit(hidden, hidden, 3, stride, hidden), *project)
        self.adds = stride == 1 and inp == out
        self.result = Junction()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inp, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        y = self.conv(x)
        return self.result(y + x if self.adds else y)


class MobileNetV2(nn.Module):
    """The blocks, numbered as the authors number them."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Sequential(*_unit(3, _FIRST, 3, 2))]
        inp = _FIRST
        for expansion, out, count, stride in _ROWS:
            for index in range(count):
                blocks.append(InvertedResidual(inp, out, 1 if index else stride, expansion))
                inp = out
        self.features = nn.Sequential(*blocks, nn.Sequential(*_unit(inp, CHANNELS[-1], 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of pictures ``(N, 3, H, W)`` at 1/2 to 1/32, of :data:`CHANNELS` channels."""
        found = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in _ENDS:
                found.append(x)
        return found


class Backbone(nn.Module):
    """What the checkpoints call the encoder: :class:`MobileNetV2` by the name ``model``."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MobileNetV2()

    def forward(self, x: Tensor) -> list[Tensor]:
        """See :meth:`MobileNetV2.forward`."""
        return self.model(x)
