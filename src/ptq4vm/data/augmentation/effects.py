"""Augmentation of clip tensors, with kornia's operations.

kornia.augmentation (and its VideoSequential) draws from the global generator and keeps what it draws for all frames, so
it can neither ease a motion over time nor give the same sample in every worker. Its functional parts, with values of
our own for each frame, do both.

This module takes seconds to import: import it where something is augmented, not before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
    sharpness,
)
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_affine
from torch import Tensor
from torch.nn import functional as F

from ptq4vm.data.augmentation.motion import EasedMotion
from ptq4vm.data.augmentation.recipes import Course, Grain, Jitter, LayerRecipe, Recipe
from ptq4vm.data.compositing import composite

_SHARPEST = 0.05  # standard deviation below which a Gaussian is a single pixel
_LEAST = 0.1  # factor on colours


class Layers(NamedTuple):
    """A clip before it is composited, or a whole picture with its alpha.

    Attributes:
        foreground: ``(T, 3, H, W)`` float32 in [0, 1]; the whole picture where ``background`` is ``None``.
        alpha: ``(T, 1, H, W)`` float32 in [0, 1].
        background: ``(T, 3, H, W)`` float32 in [0, 1], or ``None`` where it is not known apart.
    """

    foreground: Tensor
    alpha: Tensor
    background: Tensor | None

    def composite(self) -> Tensor:
        """Blend ``I = alpha F + (1 - alpha) B``; gives the picture as it is where there is no background."""
        if self.background is None:
            return self.foreground
        return composite(self.foreground, self.alpha, self.background)


def augment(layers: Layers, recipe: Recipe) -> Layers:
    """Augment the frames that ``recipe.times`` and ``recipe.background_times`` name.

    Where there is no background, the whole picture gets what is for the background, and its alpha the same geometry.
    """
    alpha = augment_alpha(layers.alpha, recipe, whole=layers.background is None)
    if layers.background is None:
        return Layers(_colours(layers.foreground, recipe, recipe.background, "reflection", 1), alpha, None)
    # colours go on beyond their picture, where alpha is zero: black would darken the edge
    foreground = _colours(layers.foreground, recipe, recipe.foreground, "border", 0)
    return Layers(foreground, alpha, _colours(layers.background, recipe, recipe.background, "reflection", 1))


def augment_alpha(alpha: Tensor, recipe: Recipe, whole: bool) -> Tensor:
    """What :func:`augment` makes of alpha: the foreground's geometry, blur and pause, and nothing else.

    Args:
        alpha: ``(T, 1, H, W)`` float32 in [0, 1].
        recipe: What to do.
        whole: Whether foreground and background are one picture.
    """
    layer, padding = (recipe.background, "reflection") if whole else (recipe.foreground, "zeros")
    return _pause(_blur(_move(alpha, layer, padding), layer.blurs), recipe.pause).clamp(0, 1)


def _colours(images: Tensor, recipe: Recipe, layer: LayerRecipe, padding: str, stream: int) -> Tensor:
    images = _move(images, layer, padding)
    if recipe.grain is not None and layer.noise > 0:
        images = _noise(images, recipe.grain, layer.noise, stream)
    if layer.jitter is not None:
        images = _jitter(images, layer.jitter)
    if recipe.grey:
        images = rgb_to_grayscale(images).expand(-1, 3, -1, -1)
    if recipe.sharpness is not None:
        images = sharpness(images, recipe.sharpness)
    return _pause(_blur(images, layer.blurs), recipe.pause).clamp(0, 1)


def _move(images: Tensor, layer: LayerRecipe, padding: str) -> Tensor:
    """Mirror, then move, in one interpolation. What was not in the picture is black or a reflection of it."""
    images = images.flip(-1) if layer.flip else images
    if not layer.moves:
        return images
    size = (images.shape[-2], images.shape[-1])
    shown = torch.linalg.inv(torch.stack([_matrix(layer.moves, time, size) for time in _times(len(images))]))
    return warp_affine(images, shown[:, :2].to(images.dtype), size, padding_mode=padding, align_corners=True)


def _matrix(moves: Sequence[EasedMotion], time: float, size: tuple[int, int]) -> Tensor:
    """From frame pixels to the picture's, ``(3, 3)`` float64."""
    anchor = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    whole = torch.eye(3, dtype=torch.float64)
    for move in moves:
        whole = move.pose(time).matrix(anchor) @ whole
    return whole


def _noise(images: Tensor, grain: Grain, deviation: float, stream: int) -> Tensor:
    count, channels, height, width = images.shape
    coarse = (max(1, round(height / grain.size)), max(1, round(width / grain.size)))
    generator = torch.Generator().manual_seed(2 * grain.seed + stream)
    noise = torch.randn((count, 1 if grain.grey else channels, *coarse), generator=generator, dtype=images.dtype)
    noise = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
    return (images + deviation * noise).clamp(0, 1)


def _jitter(images: Tensor, jitter: Jitter) -> Tensor:
    def factors(course: Course) -> Tensor:
        return (1 + _values(course, images)).clamp(min=_LEAST)

    images = adjust_brightness_accumulative(images, factors(jitter.brightness))
    images = adjust_contrast_with_mean_subtraction(images, factors(jitter.contrast))
    images = adjust_saturation_with_gray_subtraction(images, factors(jitter.saturation))
    turns = _values(jitter.hue, images).clamp(-0.5, 0.5)
    return adjust_hue(images, 2 * math.pi * turns).clamp(0, 1)


def _blur(images: Tensor, blurs: Sequence[Course]) -> Tensor:
    for course in blurs:
        sigma = _values(course, images).clamp(min=_SHARPEST)
        reach = min(math.ceil(2 * float(sigma.max())), min(images.shape[-2:]) - 1)  # reflection needs a larger picture
        images = gaussian_blur2d(images, 2 * reach + 1, sigma[:, None].expand(-1, 2))
    return images


def _pause(images: Tensor, pause: tuple[int, int] | None) -> Tensor:
    if pause is None:
        return images
    first, last = pause
    return images[[first if first <= index <= last else index for index in range(len(images))]]


def _values(course: Course, images: Tensor) -> Tensor:
    """``(T,)``, of the dtype of ``images``, ``(T, C, H, W)``."""
    return images.new_tensor([course.at(time) for time in _times(len(images))])


def _times(count: int) -> list[float]:
    """0 for the first frame to 1 for the last."""
    return [index / max(1, count - 1) for index in range(count)]
