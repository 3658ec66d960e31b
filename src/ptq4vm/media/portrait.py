"""A drawn film of a head and shoulders with exact alpha, for where nobody gives a clip."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Enlarge = Callable[[NDArray[np.float32], tuple[int, int]], NDArray[np.float32]]
"""Brings a small picture ``(h, w, 3)`` to ``(H, W)``, smoothly."""


def by_opencv(coarse: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge a picture by bicubic interpolation to ``(H, W, 3)``."""
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def draw_portrait(
    size: tuple[int, int], frames: int, enlarge: Enlarge = by_opencv
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a head and shoulders that sway before a smooth background, the same ones every time.

    Args:
        size: ``(H, W)`` of the frames, pixels.
        frames: How many frames to draw.
        enlarge: Makes smooth pictures of small ones, by interpolation.

    Returns:
        Pictures ``(frames, H, W, 3)`` RGB and their alpha ``(frames, H, W)``, uint8.
    """
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    y, x = rows / height, (columns - width / 2) / height
    random = np.random.default_rng(0)
    background, skin, cloth = (_smooth(random, size, enlarge) for _ in range(3))
    skin, cloth = skin * 0.15 + (0.75, 0.55, 0.45), cloth * 0.2 + (0.15, 0.2, 0.4)
    pictures, mattes = [], []
    for index in range(frames):
        sway = 0.06 * np.sin(index * 0.25)
        head = _inside(np.hypot((x - sway) / 0.15, (y - 0.36) / 0.2), height * 0.15)
        body = _inside(np.hypot((x - sway / 2) / 0.38, (y - 1.0) / 0.45), height * 0.38)
        alpha = np.maximum(head, body)[..., None]
        person = np.where(head[..., None] > 0.5, skin, cloth)
        pictures.append(alpha * person + (1 - alpha) * np.roll(background, index, 1))
        mattes.append(alpha[..., 0])
    return _bytes(np.stack(pictures)), _bytes(np.stack(mattes))


def _smooth(random: np.random.Generator, size: tuple[int, int], enlarge: Enlarge) -> NDArray[np.float32]:
    """A smooth picture ``(H, W, 3)`` in [0, 1]."""
    coarse = random.random((3, 5, 8), dtype=np.float32).transpose(1, 2, 0)
    return enlarge(np.ascontiguousarray(coarse), size).clip(0, 1)


def _inside(distance: NDArray[np.float32], pixels: float) -> NDArray[np.float32]:
    """1 where ``distance`` < 1, 0 outside, with an edge two pixels wide; ``pixels`` is the length of 1."""
    return np.clip((1 - distance) * pixels / 2 + 0.5, 0, 1)


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
