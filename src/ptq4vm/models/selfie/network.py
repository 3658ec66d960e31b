"""MediaPipe's selfie segmentation (Google, 2020): a small MobileNetV3 encoder and a decoder of three gated scales."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.selfie.layers import Convolution, Descriptor, Inverted, Row, Shuffled, Stage
from ptq4vm.ops.junction import Junction

SIZES = {"general": (256, 256), "landscape": (144, 256)}
"""Rows and columns of the picture at which each variant runs, pixels."""
_WIDTH, _DEEP = 16, 128
_ROWS = (
    Row(3, 16, 16, 8, nn.ReLU, stride=2),
    Row(3, 72, 24, 0, nn.ReLU, stride=2),
    Row(3, 88, 24, 0, nn.ReLU),
    Row(5, 96, 32, 24, nn.Hardswish, stride=2),
    Row(5, 128, 32, 32, nn.Hardswish),
    Row(5, 128, 32, 32, nn.Hardswish),
    Row(5, 96, 32, 24, nn.Hardswish),
    Row(5, 96, 32, 24, nn.Hardswish),
)
_SKIPS = (2, 0)
"""Rows whose result the decoder reads, in the order in which it does; the stem's comes last."""


class Selfie(MattingNetwork):
    """The segmentation network, for frames ``(B, 3, H, W)`` and clips ``(B, T, 3, H, W)`` of any size.

    It sees every frame alone, resized to its own size, and gives alpha only: the foreground is the frame itself. Every
    child of ``encoder`` and ``decoder``, ``stem``, ``head`` and ``project`` is called once in a forward pass.

    Args:
        variant: One of :data:`SIZES`.

    Raises:
        ConfigError: Unknown variant.
    """

    def __init__(self, variant: str = "general") -> None:
        super().__init__()
        if variant not in SIZES:
            raise ConfigError(f"unknown selfie variant {variant!r}: choose one of {', '.join(SIZES)}")
        self.size = SIZES[variant]
        self.image = Junction()
        self.stem = Convolution(3, _WIDTH, 3, nn.Hardswish, stride=2)
        widths = [_WIDTH, *(row.out for row in _ROWS)]
        self.encoder = nn.ModuleList(Inverted(inp, row) for inp, row in zip(widths, _ROWS, strict=False))
        self.head = Descriptor(widths[-1], _DEEP)
        joined = [_DEEP, *(_ROWS[index].out for index in _SKIPS), _WIDTH]
        self.decoder = nn.ModuleList(Stage(inp, out) for inp, out in itertools.pairwise(joined))
        self.project = Shuffled(_WIDTH)

    def forward(self, src: Tensor, downsample_ratio: float = 1.0) -> list[Tensor]:
        """Segment frames or clips.

        Args:
            src: ``(B, 3, H, W)`` or ``(B, T, 3, H, W)``, float RGB in [0, 1].
            downsample_ratio: Without effect: the network runs at its own size whatever the frame's is.

        Returns:
            ``[foreground, alpha]``: ``src`` itself, and alpha ``(B, [T, ]1, H, W)`` in [0, 1].

        Raises:
            ValueError: ``src`` is neither frames nor clips of three channels.
        """
        if src.ndim not in (4, 5) or src.shape[-3] != 3:
            raise ValueError(f"src must be (B, 3, H, W) or (B, T, 3, H, W), got {tuple(src.shape)}")
        frames = src.flatten(0, 1) if src.ndim == 5 else src
        alpha = self._alpha(F.interpolate(frames, self.size, mode="bilinear", align_corners=False))
        size = (frames.shape[-2], frames.shape[-1])
        alpha = F.interpolate(alpha, size, mode="bilinear", align_corners=False)
        return [src, alpha.unflatten(0, src.shape[:2]) if src.ndim == 5 else alpha]

    def _alpha(self, image: Tensor) -> Tensor:
        """Alpha ``(N, 1, h, w)`` of pictures ``(N, 3, h, w)`` of the network's own size."""
        x = first = self.stem(self.image(image))
        results = []
        for block in self.encoder:
            x = block(x)
            results.append(x)
        x = self.head(x)
        for stage, skip in zip(self.decoder, (*(results[index] for index in _SKIPS), first), strict=True):
            x = stage(x, skip)
        return self.project(x)
