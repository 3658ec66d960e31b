"""Robust Video Matting (Lin et al., WACV 2022): encoder, LR-ASPP, recurrent decoder, projections, refiner.

Written from the paper; module and parameter names are those of the official state dicts, which load strictly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.errors import ConfigError
from ptq4vm.models.base import MattingNetwork, Replacements, check_frames
from ptq4vm.models.rvm.decoder import RecurrentDecoder
from ptq4vm.models.rvm.export import replacements
from ptq4vm.models.rvm.layers import merge_time, split_time
from ptq4vm.models.rvm.lraspp import LRASPP
from ptq4vm.models.rvm.mobilenetv3 import MobileNetV3Encoder
from ptq4vm.models.rvm.refiner import DeepGuidedFilterRefiner, FastGuidedFilterRefiner, GuidedFilter
from ptq4vm.models.rvm.resnet import ResNet50Encoder

VARIANTS = ("mobilenetv3", "resnet50")
REFINERS = ("deep_guided_filter", "fast_guided_filter")

_HIDDEN = 16


class Projection(nn.Module):
    """A 1x1 convolution over frames or clips."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, [T, ]inp, H, W)`` to ``(B, [T, ]out, H, W)``."""
        return split_time(self.conv(merge_time(x)), x)


def _encoder(variant: str) -> MobileNetV3Encoder | ResNet50Encoder:
    if variant == "mobilenetv3":
        return MobileNetV3Encoder()
    if variant == "resnet50":
        return ResNet50Encoder()
    raise ConfigError(f"unknown RVM variant {variant!r}: choose one of {', '.join(VARIANTS)}")


def _refiner(name: str) -> GuidedFilter:
    if name == "deep_guided_filter":
        return DeepGuidedFilterRefiner(_HIDDEN)
    if name == "fast_guided_filter":
        return FastGuidedFilterRefiner()
    raise ConfigError(f"unknown refiner {name!r}: choose one of {', '.join(REFINERS)}")


class RecurrentMatting(MattingNetwork):
    """RVM's course of a frame, for frames ``(B, 3, H, W)`` and clips ``(B, T, 3, H, W)`` of any size.

    Every child of the backbone, ``aspp``, every ``decoder.decodeN``, ``project_mat`` and ``refiner`` is called exactly
    once in a forward pass. The backbone and ``aspp`` see frames, ``(B*T, C, H, W)``; what follows sees clips.

    Args:
        backbone: From frames to features at 1/2, 1/4, 1/8 and 1/16 of their size.
        aspp: From the last of these to what the decoder begins with.
        decoder: From the image, the four features and four states to 16 channels at full size, and the states after.
        refiner: One of :data:`REFINERS`: what carries the result to full size when ``downsample_ratio`` is not 1.
            The fast guided filter has no parameters, hence no entries in the state dict.

    Raises:
        ConfigError: Unknown refiner.
    """

    num_states = 4
    size_step = 16

    def __init__(self, backbone: nn.Module, aspp: nn.Module, decoder: nn.Module, refiner: str) -> None:
        super().__init__()
        self.refiner_name = refiner
        self.backbone = backbone
        self.aspp = aspp
        self.decoder = decoder
        self.project_mat = Projection(_HIDDEN, 4)
        self.project_seg = Projection(_HIDDEN, 1)
        self.refiner = _refiner(refiner)

    def forward(
        self,
        src: Tensor,
        r1: Tensor | None = None,
        r2: Tensor | None = None,
        r3: Tensor | None = None,
        r4: Tensor | None = None,
        downsample_ratio: float = 1.0,
        segmentation_pass: bool = False,
    ) -> list[Tensor]:
        """Matte, or segment, frames or clips.

        Args:
            src: ``(B, 3, H, W)`` or ``(B, T, 3, H, W)``, float RGB in [0, 1].
            r1: State ``(B, C1, ceil(h/2), ceil(w/2))`` where h x w is the downsampled size, or ``None`` for zeros.
            r2: State at 1/4 of that size, likewise.
            r3: State at 1/8 of that size, likewise.
            r4: State at 1/16 of that size, likewise.
            downsample_ratio: The network runs at this fraction of the size and the refiner brings its result back.
            segmentation_pass: Whether to return segmentation logits instead of a matte.

        Returns:
            ``[foreground, alpha, r1, r2, r3, r4]``: foreground ``(B, [T, ]3, H, W)`` and alpha ``(B, [T, ]1, H, W)``,
            both in [0, 1]; or ``[logits (B, [T, ]1, h, w), r1, r2, r3, r4]``.

        Raises:
            ValueError: ``src`` is neither frames nor clips of three channels.
            ConfigError: The ratio is not positive.
        """
        check_frames(src)
        base = src if downsample_ratio == 1 else _resize(src, downsample_ratio)
        hidden, states = self._decode(base, (r1, r2, r3, r4))
        if segmentation_pass:
            return [self.project_seg(hidden), *states]
        residual, alpha = self.project_mat(hidden).split([3, 1], -3)
        if downsample_ratio != 1:
            residual, alpha = self.refiner(src, base, residual, alpha, hidden)
        return [(residual + src).clamp(0, 1), alpha.clamp(0, 1), *states]

    def _decode(
        self, image: Tensor, states: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The decoder's features ``(B, [T, ]16, h, w)`` and the states after the last frame."""
        frames = merge_time(image)
        f1, f2, f3, f4 = self.backbone(frames)
        if f1.is_contiguous(memory_format=torch.channels_last):
            # The image joins the features in concatenations, which keep a layout only when all parts share it.
            image = split_time(frames.contiguous(memory_format=torch.channels_last), image)
        features = (
            split_time(f1, image),
            split_time(f2, image),
            split_time(f3, image),
            split_time(self.aspp(f4), image),
        )
        return self.decoder(image, features, states)


class RVM(RecurrentMatting):
    """The matting network; see :class:`RecurrentMatting`.

    Args:
        variant: The encoder, one of :data:`VARIANTS`.
        refiner: One of :data:`REFINERS`.

    Raises:
        ConfigError: Unknown variant or refiner.
    """

    def __init__(self, variant: str = "mobilenetv3", refiner: str = "deep_guided_filter") -> None:
        backbone = _encoder(variant)
        pooled, widths = (128, (80, 40, 32, _HIDDEN)) if variant == "mobilenetv3" else (256, (128, 64, 32, _HIDDEN))
        f1, f2, f3, f4 = backbone.channels
        super().__init__(backbone, LRASPP(f4, pooled), RecurrentDecoder((f1, f2, f3, pooled), widths), refiner)
        self.variant = variant

    def export_replacements(self, target: str) -> Replacements:
        """See :meth:`MattingNetwork.export_replacements`: the recurrent units and the refiner."""
        return replacements(target)


def _resize(x: Tensor, ratio: float) -> Tensor:
    """Bilinear resizing of frames or clips by ``ratio``, which also sets the sampling positions."""
    if ratio <= 0:
        raise ConfigError(f"downsample_ratio must be positive, got {ratio}")
    frames = F.interpolate(
        merge_time(x), scale_factor=ratio, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )
    return split_time(frames, x)
