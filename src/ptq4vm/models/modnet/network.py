"""MODNet (Ke et al., "MODNet: Real-Time Trimap-Free Portrait Matting via Objective Decomposition", AAAI 2022).

Written from the paper. Names are those of the authors' checkpoints; the heads that only training needs are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import FrameMatting
from ptq4vm.models.modnet.backbone import CHANNELS, Backbone
from ptq4vm.models.modnet.layers import Convolution, Resize, SEBlock
from ptq4vm.ops.junction import Junction

SIZE = 512
"""Length of the shorter side of the picture for which the authors' weights were trained, pixels."""
_STEP = 32
_WIDTH = 32


class LowResolution(nn.Module):
    """Where in the picture somebody is: from the deepest features up to 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.se_block = SEBlock(CHANNELS[4], reduction=4)
        self.up32 = Resize(2)
        self.conv_lr16x = Convolution(CHANNELS[4], CHANNELS[3], 5)
        self.up16 = Resize(2)
        self.conv_lr8x = Convolution(CHANNELS[3], CHANNELS[2], 5)

    def forward(self, deepest: Tensor) -> Tensor:
        """Features at 1/32 to features at 1/8."""
        return self.conv_lr8x(self.up16(self.conv_lr16x(self.up32(self.se_block(deepest)))))


class HighResolution(nn.Module):
    """What the edge looks like: features at 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.down2, self.down4 = Resize(1 / 2), Resize(1 / 4)
        self.tohr_enc2x = Convolution(CHANNELS[0], _WIDTH, 1)
        self.conv_enc2x = Convolution(_WIDTH + 3, _WIDTH, 3, stride=2)
        self.tohr_enc4x = Convolution(CHANNELS[1], _WIDTH, 1)
        self.conv_enc4x = Convolution(2 * _WIDTH, 2 * _WIDTH, 3)
        self.up8 = Resize(2)
        self.conv_hr4x = nn.Sequential(
            Convolution(3 * _WIDTH + 3, 2 * _WIDTH, 3),
            Convolution(2 * _WIDTH, 2 * _WIDTH, 3),
            Convolution(2 * _WIDTH, _WIDTH, 3),
        )
        self.up4 = Resize(2)
        self.conv_hr2x = nn.Sequential(
            Convolution(2 * _WIDTH, 2 * _WIDTH, 3),
            Convolution(2 * _WIDTH, _WIDTH, 3),
            Convolution(_WIDTH, _WIDTH, 3),
            Convolution(_WIDTH, _WIDTH, 3),
        )

    def forward(self, image: Tensor, half: Tensor, quarter: Tensor, semantic: Tensor) -> Tensor:
        """The picture, the encoder's features at 1/2 and 1/4, and those of :class:`LowResolution`, to 1/2."""
        half = self.tohr_enc2x(half)
        detail = self.conv_enc2x(torch.cat([self.down2(image), half], 1))
        detail = self.conv_enc4x(torch.cat([detail, self.tohr_enc4x(quarter)], 1))
        detail = self.conv_hr4x(torch.cat([detail, self.up8(semantic), self.down4(image)], 1))
        return self.conv_hr2x(torch.cat([self.up4(detail), half], 1))


class Fusion(nn.Module):
    """Both put together, up to the size of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.up8 = Resize(2)
        self.conv_lr4x = Convolution(CHANNELS[2], _WIDTH, 5)
        self.up4 = Resize(2)
        self.conv_f2x = Convolution(2 * _WIDTH, _WIDTH, 3)
        self.up2 = Resize(2)
        self.conv_f = nn.Sequential(Convolution(_WIDTH + 3, _WIDTH // 2, 3), Convolution(_WIDTH // 2, 1, 1, bare=True))

    def forward(self, image: Tensor, semantic: Tensor, detail: Tensor) -> Tensor:
        """The picture and the features of both branches to alpha ``(N, 1, H, W)`` in [0, 1]."""
        semantic = self.up4(self.conv_lr4x(self.up8(semantic)))
        joined = self.up2(self.conv_f2x(torch.cat([semantic, detail], 1)))
        return torch.sigmoid(self.conv_f(torch.cat([joined, image], 1)))  # no module: alpha is not to be quantized


class MODNet(FrameMatting):
    """The matting network, for frames ``(B, 3, H, W)`` and clips ``(B, T, 3, H, W)`` of any size.

    It sees every frame alone and gives alpha only: the foreground is the frame itself. The frame is resized such that
    its shorter side is ``size`` long, and both are multiples of 32. An exported file keeps the size it was made for.

    Args:
        size: Length of the shorter side of the picture at which it runs, pixels; a multiple of 32.

    Raises:
        ConfigError: The size is no such number.
    """

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        if not isinstance(size, int) or size < _STEP or size % _STEP:
            raise ConfigError(f"size={size!r} of modnet: use a multiple of {_STEP} pixels")
        self.size = size
        self.image = Junction()
        self.backbone = Backbone()
        self.lr_branch = LowResolution()
        self.hr_branch = HighResolution()
        self.f_branch = Fusion()

    def own_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`FrameMatting.own_size`: the frame's shape, its shorter side ``size`` long."""
        scale = self.size / min(int(height), int(width))
        rows, columns = (max(_STEP, round(int(length) * scale / _STEP) * _STEP) for length in (height, width))
        return rows, columns

    def alpha(self, image: Tensor) -> Tensor:
        """See :meth:`FrameMatting.alpha`."""
        image = self.image(image * 2 - 1)
        half, quarter, _, _, deepest = self.backbone(image)
        semantic = self.lr_branch(deepest)
        return self.f_branch(image, semantic, self.hr_branch(image, half, quarter, semantic))
