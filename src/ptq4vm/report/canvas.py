"""Small drawing helpers that contact sheets share: fonts, scaling, colour."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

Bytes: TypeAlias = NDArray[np.uint8]

GREEN = (120, 255, 155)
"""Background of composites, RGB."""


@lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at a size in pixels; matplotlib ships it, so it is the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def fit_text(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """``text``, cut and ended with an ellipsis where it is wider than ``width`` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def resize_to_width(image: Bytes, width: int) -> Bytes:
    """Scale ``(H, W)`` or ``(H, W, 3)`` to a width, keeping its shape; averages when it shrinks."""
    if image.shape[1] == width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def gray_to_rgb(gray: Bytes) -> Bytes:
    """``(H, W)`` to ``(H, W, 3)``."""
    return np.repeat(gray[..., None], 3, axis=-1)


def colour_map(gray: Bytes) -> Bytes:
    """``(H, W)`` to RGB ``(H, W, 3)``: black for 0, through violet and orange, to light yellow for 255."""
    return np.ascontiguousarray(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO)[..., ::-1])


def composite(foreground: Bytes, alpha: Bytes, background: tuple[int, int, int] = GREEN) -> Bytes:
    """``alpha * foreground + (1 - alpha) * background``: ``(H, W, 3)``, ``(H, W)`` and one RGB colour, 8 bit."""
    weight = alpha[..., None].astype(np.float32) / 255.0
    mixed = weight * foreground + (1.0 - weight) * np.asarray(background, dtype=np.float32)
    return np.rint(mixed).astype(np.uint8)
