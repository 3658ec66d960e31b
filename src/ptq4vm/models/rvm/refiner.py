"""Guided filters that carry a low-resolution matte over to the full-resolution image.

Both fit, in every 3x3 window of the small image, the linear model ``matte = A * guide + b``, upsample A and b, and
apply them to the large image (He and Sun, "Fast Guided Filter", 2015). The guide is the image's three colours plus
their mean; the matte is the foreground residual and alpha. The deep filter (Wu et al., "Fast End-to-End Trainable
Guided Filter", CVPR 2018) lets a small network choose A.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptq4vm.models.rvm.layers import merge_time, split_time


def _guide(image: Tensor) -> Tensor:
    """``(N, 3, H, W)`` to ``(N, 4, H, W)``: the colours and their mean."""
    return torch.cat([image, image.mean(1, keepdim=True)], 1)


class BoxFilter(nn.Module):
    """Mean over 3x3 windows, rows first, then columns; outside the image there are zeros that count."""

    kernel: Tensor

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("kernel", torch.full((channels, 1, 1, 3), 1 / 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)`` to the same shape."""
        # Not a pooling: where the image is flat, variance is a difference of nearly equal numbers, and any other
        # order of float32 sums moves alpha by up to 3e-4 against the reference.
        rows = F.conv2d(x, self.kernel, padding=(0, 1), groups=self.channels)
        return F.conv2d(rows, self.kernel.transpose(2, 3), padding=(1, 0), groups=self.channels)


class GuidedFilter(nn.Module, ABC):
    """What the two filters share; a subclass says how window means are taken and how A follows from the statistics."""

    box_filter: nn.Module

    def window_means(self, *images: Tensor) -> Sequence[Tensor]:
        """Means of images ``(N, 4, h, w)`` over 3x3 windows, in the same shape."""
        return [self.box_filter(image) for image in images]

    @abstractmethod
    def slope(self, covariance: Tensor, variance: Tensor, hidden: Tensor) -> Tensor:
        """A, ``(N, 4, h, w)``, from cov(guide, matte), var(guide) (as A) and the decoder's features."""

    def forward(
        self, fine_image: Tensor, base_image: Tensor, base_residual: Tensor, base_alpha: Tensor, base_hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refine frames or clips.

        Args:
            fine_image: ``(B, [T, ]3, H, W)`` in [0, 1].
            base_image: The same, downsampled: ``(B, [T, ]3, h, w)``.
            base_residual: Foreground minus image, ``(B, [T, ]3, h, w)``.
            base_alpha: ``(B, [T, ]1, h, w)``.
            base_hidden: The decoder's last features, ``(B, [T, ]C, h, w)``.

        Returns:
            Foreground residual ``(B, [T, ]3, H, W)`` and alpha ``(B, [T, ]1, H, W)``, neither of them clamped.
        """
        a, b = self.fit(base_image, base_residual, base_alpha, base_hidden)
        fine_guide = _guide(merge_time(fine_image))
        size = fine_guide.shape[-2:]
        a = F.interpolate(a, size, mode="bilinear", align_corners=False)
        b = F.interpolate(b, size, mode="bilinear", align_corners=False)
        residual, alpha = (a * fine_guide + b).split([3, 1], 1)
        return split_time(residual, fine_image), split_time(alpha, fine_image)

    def fit(
        self, base_image: Tensor, base_residual: Tensor, base_alpha: Tensor, base_hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A and b of the small image, both ``(B [* T], 4, h, w)``; see :meth:`forward`."""
        guide = _guide(merge_time(base_image))
        matte = torch.cat([merge_time(base_residual), merge_time(base_alpha)], 1)
        mean_guide, mean_matte, mean_product, mean_square = self.window_means(
            guide, matte, guide * matte, guide * guide
        )
        covariance = mean_product - mean_guide * mean_matte
        variance = mean_square - mean_guide * mean_guide
        a = self.slope(covariance, variance, merge_time(base_hidden))
        return a, mean_matte - a * mean_guide


class FastGuidedFilterRefiner(GuidedFilter):
    """``A = cov / (var + eps)``, without parameters."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.box_filter = BoxFilter()

    def slope(self, covariance: Tensor, variance: Tensor, hidden: Tensor) -> Tensor:
        """Least squares with the regularisation eps; ``hidden`` is not used."""
        return covariance / (variance + self.eps)


class DeepGuidedFilterRefiner(GuidedFilter):
    """A from three 1x1 convolutions over covariance, variance and the decoder's features."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.box_filter = nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=4)
        nn.init.constant_(self.box_filter.weight, 1 / 9)
        self.conv = nn.Sequential(
            nn.Conv2d(2 * 4 + hidden, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, 4, 1),
        )

    def slope(self, covariance: Tensor, variance: Tensor, hidden: Tensor) -> Tensor:
        """A as three learned convolutions predict it, ``(N, 4, h, w)``; see :meth:`GuidedFilter.slope`."""
        return self.conv(torch.cat([covariance, variance, hidden], 1))
