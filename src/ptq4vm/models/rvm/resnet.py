"""ResNet-50 as RVM's encoder (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1).

The stride of a bottleneck sits on its 3x3 convolution, and the last stage is dilated instead of strided, which keeps
the deepest features at 1/16 of the input. Parameters are named as torchvision names them.
"""

from __future__ import annotations

from torch import Tensor, nn

from ptq4vm.models.rvm.layers import ImageNetNormalize

_EXPANSION = 4


class Bottleneck(nn.Module):
    """``relu(x' + bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))))``; x' is x, projected where shapes differ."""

    def __init__(self, inp: int, width: int, stride: int = 1, dilation: int = 1, project: bool = False) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1 = nn.Conv2d(inp, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if project:
            self.downsample = nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, 4*width, ceil(H/stride), ceil(W/stride))``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu3(y + shortcut)


def _stage(inp: int, width: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A stage of bottlenecks; in a dilated stage the first is not dilated yet, as it stands where the stride was."""
    first = Bottleneck(inp, width, stride, project=True)
    rest = [Bottleneck(width * _EXPANSION, width, dilation=dilation) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class ResNet50Encoder(nn.Module):
    """Feature pyramid of ResNet-50."""

    channels = (64, 256, 512, 2048)
    """Channels of the features at 1/2, 1/4, 1/8 and 1/16 of the input size."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = ImageNetNormalize()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 3)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, dilation=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(N, 3, H, W)`` in [0, 1] to the features at 1/2, 1/4, 1/8 and 1/16, with :attr:`channels` channels."""
        f1 = self.relu(self.bn1(self.conv1(self.normalize(x))))
        f2 = self.layer1(self.maxpool(f1))
        f3 = self.layer2(f2)
        f4 = self.layer4(self.layer3(f3))
        return f1, f2, f3, f4
