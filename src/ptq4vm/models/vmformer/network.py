"""A small transformer for video matting, in the spirit of VMFormer (Li et al., "VMFormer: End-to-End Video Matting with
Transformer", WACV 2024): attention within a frame and to the frame before, and learned queries whose products with
features at full size are the matte. It is no port: widths, encoder, decoder, memory and training are our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import TrainableMatting, check_frames
from ptq4vm.models.rvm.decoder import Merge
from ptq4vm.models.rvm.layers import merge_time, split_time
from ptq4vm.models.rvm.mobilenetv3 import MobileNetV3Encoder
from ptq4vm.models.vmformer.attention import Layer, MemoryLayer, Queries
from ptq4vm.ops.junction import Junction, Operand

WIDTH = 128
"""Channels of tokens."""
_HEADS, _EXPANSION = 4, 2
_QUERIES = 4  # what is added to the three colours, and alpha
_TAPS = (1, 3, 6, 12)
_DECODED = (80, 40, 32, 16)


class Encoder(MobileNetV3Encoder):
    """MobileNetV3-Large up to its twelfth block: features at 1/2, 1/4, 1/8 and 1/16, named as RVM names them."""

    channels = (16, 24, 40, 112)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(self.features)[: _TAPS[-1] + 1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(N, 3, H, W)`` in [0, 1] to four features of :attr:`channels` channels."""
        x = self.normalize(x)
        found = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in _TAPS:
                found.append(x)
        first, second, third, last = found
        return first, second, third, last


class FirstGuess(nn.Module):
    """Weights of the matte's last projection before a frame was seen, shaped and named as RVM's 1x1 convolution."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(out, inp, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Weights ``(inp, 1, out)`` and what is added to the results, ``(out, 1, 1)``."""
        return self.weight.permute(1, 2, 0, 3).flatten(2), self.bias.view(-1, 1, 1)


class Up(nn.Module):
    """Upsample twice, join with the encoder's features and the small picture, convolve."""

    def __init__(self, inp: int, skip: int, out: int) -> None:
        super().__init__()
        self.merge = Merge()
        self.conv = nn.Sequential(
            nn.Conv2d(inp + skip + 3, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )

    def forward(self, x: Tensor, skip: Tensor, image: Tensor) -> Tensor:
        """Frames at half the size of ``skip`` and ``image`` to ``(N, out, H, W)``."""
        return self.conv(self.merge(x, skip, image))


class Product(nn.Module):
    """Upsample to the picture's size, convolve twice, and multiply every pixel's features by the queries' results."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.merge = Merge()
        self.conv = nn.Sequential(
            *(nn.Conv2d(inp + 3, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()),
            *(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()),
        )
        self.features, self.queries = Operand(), Operand()

    def forward(self, x: Tensor, image: Tensor, queries: Tensor) -> Tensor:
        """Frames ``(N, C, h, w)``, pictures ``(N, 3, H, W)`` and queries ``(N, out, 1, Q)`` to ``(N, Q, H, W)``."""
        features = self.features(self.conv(self.merge(x, image)))
        weights = self.queries(queries).flatten(2).transpose(1, 2)
        matte = weights @ features.flatten(2)
        return matte.reshape(*matte.shape[:2], *image.shape[-2:])


class Decoder(nn.Module):
    """From tokens at 1/16 to the matte at full size; convolutions are named as RVM names them."""

    def __init__(self, features: tuple[int, int, int]) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.images = nn.ModuleList(Junction() for _ in range(4))
        self.decode3 = Up(WIDTH, features[2], _DECODED[0])
        self.decode2 = Up(_DECODED[0], features[1], _DECODED[1])
        self.decode1 = Up(_DECODED[1], features[0], _DECODED[2])
        self.decode0 = Product(_DECODED[2], _DECODED[3])

    def forward(self, x: Tensor, features: tuple[Tensor, ...], image: Tensor, queries: Tensor) -> Tensor:
        """Tokens ``(N, WIDTH, h, w)``, features at 1/2 to 1/8, pictures and queries to ``(N, Q, H, W)``."""
        levels = [image]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        full, half, quarter, eighth = (tap(level) for tap, level in zip(self.images, levels, strict=True))
        x = self.decode3(x, features[2], eighth)
        x = self.decode2(x, features[1], quarter)
        x = self.decode1(x, features[0], half)
        return self.decode0(x, full, queries)


class VMFormerMini(TrainableMatting):
    """The matting network, for frames ``(B, 3, H, W)`` and clips ``(B, T, 3, H, W)`` of any size.

    Its one state is the map of tokens ``(B, 128, ceil(h / 16), ceil(w / 16))`` that its memory gave for the last frame.

    Args:
        layers: How many layers look at every frame alone, before the one with the memory.

    Raises:
        ConfigError: The number is no whole number of at least 0.
    """

    num_states = 1

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        if not isinstance(layers, int) or layers < 0:
            raise ConfigError(f"layers={layers!r} of vmformer: use a whole number from 0 on")
        self.backbone = Encoder()
        channels = self.backbone.channels
        self.embed = nn.Sequential(nn.Conv2d(channels[3], WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.embedded = Junction()
        self.layers = nn.ModuleList(Layer(WIDTH, _HEADS, _EXPANSION) for _ in range(layers))
        self.memory = MemoryLayer(WIDTH, _HEADS, _EXPANSION)
        self.remembered = Junction()  # not the state's own: its scales may differ by channel, which no token's can
        self.queries = Queries(WIDTH, _HEADS, _EXPANSION, _QUERIES, _DECODED[-1])
        self.decoder = Decoder(channels[:3])
        self.project_mat = nn.ModuleDict({"conv": FirstGuess(_DECODED[-1], _QUERIES)})

    @property
    def state_strides(self) -> tuple[int, ...]:
        """See :attr:`MattingNetwork.state_strides`."""
        return (16,)

    def train(self, mode: bool = True) -> VMFormerMini:
        """See ``nn.Module``; batch norms keep the statistics that they begin with, RVM's where it was begun with.

        A batch of two short clips has none that hold for others.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, src: Tensor, memory: Tensor | None = None, downsample_ratio: float = 1.0) -> list[Tensor]:
        """Matte frames or clips.

        Args:
            src: ``(B, 3, H, W)`` or ``(B, T, 3, H, W)``, float RGB in [0, 1].
            memory: State ``(B, 128, ceil(h / 16), ceil(w / 16))`` where h x w is the downsampled size, or ``None`` for
                zeros.
            downsample_ratio: The network runs at this fraction of the size, and its result is enlarged bilinearly.

        Returns:
            ``[foreground, alpha, memory]``: foreground ``(B, [T, ]3, H, W)`` and alpha ``(B, [T, ]1, H, W)`` in [0, 1].

        Raises:
            ValueError: ``src`` is neither frames nor clips of three channels.
            ConfigError: The ratio is not positive.
        """
        check_frames(src)
        if downsample_ratio <= 0:
            raise ConfigError(f"downsample_ratio must be positive, got {downsample_ratio}")
        frames = image = merge_time(src)
        if downsample_ratio != 1:
            image = F.interpolate(frames, scale_factor=downsample_ratio, mode="bilinear", align_corners=False)
        *features, x = self.backbone(image)
        x = self.embedded(self.embed(x))
        for layer in self.layers:
            x = layer(x)
        clips, memory = self.memory(split_time(x, src), memory)
        x = merge_time(clips)
        weights, bias = self.project_mat["conv"]()
        matte = self.decoder(self.remembered(x), tuple(features), image, self.queries(x) + weights) + bias
        if downsample_ratio != 1:
            matte = F.interpolate(matte, frames.shape[-2:], mode="bilinear", align_corners=False)
        residual, alpha = split_time(matte, src).split([_QUERIES - 1, 1], -3)
        return [self._clipped(residual + src), self._clipped(alpha), memory]

    def _clipped(self, raw: Tensor) -> Tensor:
        """To [0, 1]; in training with the gradient of ``raw``.

        A sigmoid and clipping have none where alpha is 0: the first training stayed at background everywhere.
        """
        clipped = raw.clamp(0, 1)
        return raw + (clipped - raw).detach() if self.training else clipped
