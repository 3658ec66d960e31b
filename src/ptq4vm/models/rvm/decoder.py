"""RVM's recurrent decoder (Lin et al., "Robust High-Resolution Video Matting with Temporal Guidance", WACV 2022, 3.2).

Every block takes frames ``(B, C, H, W)`` or clips ``(B, T, C, H, W)`` and is called once for a whole clip: the
feed-forward part sees all frames at once, the recurrent part loops over time inside.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ptq4vm.models.rvm.layers import concat_channels, merge_time, split_time, stack_time
from ptq4vm.ops.junction import Junction, Regrid


class ConvGRU(nn.Module):
    """Convolutional gated recurrent unit (the paper's equation 1).

    ``r, z = sigmoid(ih([x, h]))``, ``c = tanh(hh([x, r*h]))``, ``h' = (1-z)*h + z*c``.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.ih = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, kernel, padding=kernel // 2), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(2 * channels, channels, kernel, padding=kernel // 2), nn.Tanh())
        self.reset = Junction()
        self.state = Junction()

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """Next state from one frame ``x`` and the state ``h``, all ``(B, C, H, W)``."""
        r, z = self.ih(torch.cat([x, h], 1)).chunk(2, 1)
        candidate = self.hh(torch.cat([x, self.reset(r * h)], 1))
        return self.state(torch.lerp(h, candidate, z))

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a frame or a clip.

        Args:
            x: ``(B, C, H, W)`` or ``(B, T, C, H, W)``.
            h: State ``(B, C, H, W)``, or ``None`` for zeros.

        Returns:
            The states after each frame, shaped as ``x``, and the last of them ``(B, C, H, W)``.
        """
        return over_time(self.step, x, h)


def over_time(step: Callable[..., Tensor], x: Tensor, h: Tensor | None, *along: Tensor) -> tuple[Tensor, Tensor]:
    """Take a recurrent step for a frame, or one after the other for those of a clip.

    Args:
        step: From a frame, the state and the frame's part of ``along`` to the next state, ``(B, C, H, W)`` each.
        x: ``(B, C, H, W)`` or ``(B, T, C, H, W)``.
        h: State ``(B, C, H, W)``, or ``None`` for zeros.
        along: Further frames or clips, as ``x`` is one, that every step takes its own part of.

    Returns:
        The states after each frame, shaped as ``x``, and the last of them ``(B, C, H, W)``.
    """
    clip = x.ndim == 5
    parts = [each.unbind(1) if clip else (each,) for each in (x, *along)]
    if h is None:
        h = torch.zeros_like(parts[0][0])
    outputs = []
    for frame, *rest in zip(*parts, strict=True):
        h = step(frame, h, *rest)
        outputs.append(h)
    return (stack_time(outputs) if clip else h), h


def recur_half(gru: nn.Module, x: Tensor, state: Tensor | None, *along: Tensor) -> tuple[Tensor, Tensor]:
    """Pass the second half of the channels through ``gru``; the first half goes straight.

    Args:
        gru: A recurrent unit for half of the channels, which gives its states and the last of them.
        x: ``(B, C, H, W)`` or ``(B, T, C, H, W)``.
        state: State ``(B, C / 2, H, W)``, or ``None`` for zeros.
        along: What else the unit takes, such as a mask.
    """
    kept, driven = x.chunk(2, -3)
    driven, state = gru(driven, state, *along)
    return concat_channels(kept, driven), state


class BottleneckBlock(nn.Module):
    """The decoder's first block, at 1/16 of the input size: only the recurrent part."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = ConvGRU(channels // 2)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x`` ``([B, ]T, C, H, W)`` and ``state`` ``(B, C/2, H, W)`` to the same shapes."""
        return recur_half(self.gru, x, state)


class Merge(nn.Module):
    """Twice bilinear upsampling, cropped to the first reference, then concatenation with all references.

    Args:
        upsample: What doubles the size; PyTorch's bilinear upsampling when not given.
    """

    def __init__(self, upsample: nn.Module | None = None) -> None:
        super().__init__()
        self.upsample = upsample or nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.upsampled = Regrid()

    def forward(self, x: Tensor, *references: Tensor) -> Tensor:
        """``x`` at half the size of the references, all frames or all clips, to ``(N, C, H, W)`` of all channels."""
        height, width = references[0].shape[-2:]
        # An odd size was rounded up on the way down, so up again there can be one row or column too many.
        upsampled = self.upsample(merge_time(x))[..., :height, :width]
        return torch.cat([self.upsampled(upsampled), *(merge_time(reference) for reference in references)], 1)


class UpsamplingBlock(nn.Module):
    """Upsample, merge with the encoder's skip and the pooled image, convolve, recur over half of the channels."""

    def __init__(self, inp: int, skip: int, image: int, out: int) -> None:
        super().__init__()
        self.merge = Merge()
        self.conv = nn.Sequential(
            nn.Conv2d(inp + skip + image, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )
        self.gru = ConvGRU(out // 2)

    def forward(self, x: Tensor, skip: Tensor, image: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Merge ``x`` at half the size with ``skip`` and ``image``.

        Returns:
            Features with ``out`` channels at the size of ``skip``, and the state after the last frame.
        """
        y = self.conv(self.merge(x, skip, image))
        return recur_half(self.gru, split_time(y, skip), state)


class OutputBlock(nn.Module):
    """Upsample to the image's size, merge with the image, convolve twice; nothing recurrent."""

    def __init__(self, inp: int, image: int, out: int) -> None:
        super().__init__()
        self.merge = Merge()
        self.conv = nn.Sequential(
            nn.Conv2d(inp + image, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Features with ``out`` channels at the size of ``image``."""
        return split_time(self.conv(self.merge(x, image)), image)


class RecurrentDecoder(nn.Module):
    """Four recurrent scales from 1/16 to 1/2, then the full size.

    Args:
        features: Channels of the encoder's features at 1/2, 1/4, 1/8 and of the bottleneck at 1/16.
        widths: Channels that the blocks at 1/8, 1/4, 1/2 and full size give out.
    """

    def __init__(self, features: tuple[int, int, int, int], widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        self.images = nn.ModuleList(Junction() for _ in range(4))
        self.decode4 = BottleneckBlock(features[3])
        self.decode3 = UpsamplingBlock(features[3], features[2], 3, widths[0])
        self.decode2 = UpsamplingBlock(widths[0], features[1], 3, widths[1])
        self.decode1 = UpsamplingBlock(widths[1], features[0], 3, widths[2])
        self.decode0 = OutputBlock(widths[2], 3, widths[3])

    def _pyramid(self, image: Tensor) -> list[Tensor]:
        """The image at full size, 1/2, 1/4 and 1/8, each rounded up."""
        levels = [merge_time(image)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        return [split_time(tap(level), image) for tap, level in zip(self.images, levels, strict=True)]

    def forward(
        self,
        image: Tensor,
        features: tuple[Tensor, Tensor, Tensor, Tensor],
        states: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Decode frames or clips.

        Args:
            image: ``(B, [T, ]3, H, W)`` in [0, 1].
            features: At 1/2, 1/4, 1/8 and 1/16 of the image, leading dimensions as the image has them.
            states: r1 to r4, at 1/2 to 1/16; ``None`` for zeros.

        Returns:
            ``(B, [T, ]widths[3], H, W)`` and the states after the last frame.
        """
        s0, s1, s2, s3 = self._pyramid(image)
        f1, f2, f3, f4 = features
        x, r4 = self.decode4(f4, states[3])
        x, r3 = self.decode3(x, f3, s3, states[2])
        x, r2 = self.decode2(x, f2, s2, states[1])
        x, r1 = self.decode1(x, f1, s1, states[0])
        return self.decode0(x, s0), (r1, r2, r3, r4)
