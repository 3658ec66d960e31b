"""MediaPipe's selfie segmentation (Google, 2020): a small MobileNetV3 encoder and a decoder of three gated scales."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import FrameMatting
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


class Selfie(FrameMatting):
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

    def own_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`FrameMatting.own_size`: the variant's."""
        return self.size

    def alpha(self, image: Tensor) -> Tensor:
        """See :meth:`FrameMatting.alpha`."""
        x = first = self.stem(self.image(image))
        results = []
        for block in self.encoder:
            x = block(x)
            results.append(x)
        x = self.head(x)
        for stage, skip in zip(self.decoder, (*(results[index] for index in _SKIPS), first), strict=True):
            x = stage(x, skip)
        return self.project(x)
