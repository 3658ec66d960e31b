"""From a frame and its matte to the picture that is written: composite, alpha, foreground, RGBA, comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ptq4vm.engines.base import Matte
from ptq4vm.errors import ConfigError
from ptq4vm.media.frames import Picture, cover

Compose = Callable[[Picture, Sequence[Matte]], Picture]
"""From a frame ``(H, W, 3)`` and the mattes of one or more engines to what is written."""

OUTPUTS = ("composite", "alpha", "foreground", "rgba")
COLOURS = {
    "green": (120, 255, 155),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "blue": (0, 71, 187),
}
"""Backgrounds by name, RGB; the green is the one that RVM's authors composite on."""

DIFFERENCE_GAIN = 4
"""How many times the absolute difference is amplified in a comparison: 64/255 and above is white."""


def to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert values in [0, 1] to bytes in [0, 255], rounded to nearest."""
    return np.asarray(cv2.convertScaleAbs(values, alpha=255), np.uint8)


class Background(Protocol):
    """What stands behind the foreground."""

    def next(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The background of the next frame, float32 in [0, 1]; its shape broadcasts to ``(H, W, 3)``."""
        ...


class Colour:
    """One colour behind every frame.

    Args:
        rgb: Red, green and blue in [0, 255].
    """

    def __init__(self, rgb: tuple[int, int, int]) -> None:
        self._rgb = np.divide(rgb, 255, dtype=np.float32)

    def next(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The colour as ``(3,)`` float32 in [0, 1], whatever the frame's size."""
        return self._rgb


class Pictures:
    """Pictures one after another, begun again at the end; each scaled to cover the frame and cropped around its middle.

    Args:
        again: Gives the pictures, ``(H, W, 3)`` uint8, from the first on; at least one. A single one is kept.
    """

    def __init__(self, again: Callable[[], Iterator[Picture]], single: bool = False) -> None:
        self._again = again
        self._pictures = again()
        self._single = single
        self._kept: NDArray[np.float32] | None = None

    def next(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The next picture, ``(H, W, 3)`` float32 in [0, 1], scaled and cropped to ``size`` = ``(H, W)``."""
        if self._kept is None or not self._single or self._kept.shape[:2] != size:
            picture = next(self._pictures, None)
            if picture is None:
                self._pictures = self._again()
                picture = next(self._pictures)
            self._kept = np.divide(cover(picture, size), 255, dtype=np.float32)
        return self._kept


def parse_colour(text: str) -> tuple[int, int, int] | None:
    """A colour by name or as ``#rrggbb``; ``None`` where it is neither. Raises :class:`ConfigError` for ``#`` alone."""
    if text in COLOURS:
        return COLOURS[text]
    if not text.startswith("#"):
        return None
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ConfigError(f"background={text} is no colour: write it as '#rrggbb', or {', '.join(COLOURS)}")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def composite(matte: Matte, background: NDArray[np.float32]) -> Picture:
    """``alpha * F + (1 - alpha) * background``, ``(H, W, 3)`` uint8; by OpenCV, which takes a fifth of NumPy's time."""
    # a colour as OpenCV takes it: four numbers of double precision
    behind = background if background.ndim == 3 else np.array([*background, 0], np.float64)
    mixed = cv2.subtract(matte.foreground, behind)
    mixed = cv2.add(cv2.multiply(mixed, cv2.merge([matte.alpha] * 3)), behind)
    return to_bytes(np.asarray(mixed, np.float32))


def alpha_picture(alpha: NDArray[np.float32]) -> Picture:
    """Alpha as grey, ``(H, W, 3)`` uint8."""
    return np.asarray(cv2.merge([to_bytes(alpha)] * 3), np.uint8)


def foreground_picture(matte: Matte) -> Picture:
    """The foreground's colour, not multiplied by alpha; black where alpha is 0, ``(H, W, 3)`` uint8."""
    return np.asarray(cv2.copyTo(to_bytes(matte.foreground), (matte.alpha > 0).view(np.uint8)), np.uint8)


def rgba_picture(matte: Matte) -> Picture:
    """Straight (not premultiplied) RGBA, ``(H, W, 4)`` uint8."""
    return np.asarray(cv2.merge([*cv2.split(foreground_picture(matte)), to_bytes(matte.alpha)]), np.uint8)


def composer(output: str, background: Background) -> Compose:
    """What makes one of :data:`OUTPUTS` from the first engine's matte. Raises :class:`ConfigError`."""
    if output == "composite":
        return lambda frame, mattes: composite(mattes[0], background.next((frame.shape[0], frame.shape[1])))
    if output == "alpha":
        return lambda frame, mattes: alpha_picture(mattes[0].alpha)
    if output == "foreground":
        return lambda frame, mattes: foreground_picture(mattes[0])
    if output == "rgba":
        return lambda frame, mattes: rgba_picture(mattes[0])
    raise ConfigError(f"output={output} is unknown: use one of {', '.join(OUTPUTS)}")


def comparison(label: str) -> Compose:
    """Make what shows input, FP32 alpha, quantized alpha and their difference side by side, over a line of captions.

    It takes two mattes: the float network's, then the quantized one's. Its pictures are of :func:`comparison_size`.

    Args:
        label: What the captions call the quantized network, such as ``W4A4``.
    """
    names = ("input", "FP32 alpha", f"{label} alpha", f"difference x{DIFFERENCE_GAIN}")

    def compose(frame: Picture, mattes: Sequence[Matte]) -> Picture:
        first, second = mattes[0].alpha, mattes[1].alpha
        difference = np.minimum(np.abs(first - second) * DIFFERENCE_GAIN, 1)
        tiles = [frame, *(alpha_picture(alpha) for alpha in (first, second, difference))]
        row = np.concatenate(tiles, axis=1)
        return np.concatenate([row, _captions(names, frame.shape[1], caption_rows(frame.shape[0]))], axis=0)

    return compose


def comparison_size(size: tuple[int, int]) -> tuple[int, int]:
    """``(H, W)`` of a comparison of frames of ``size`` = ``(H, W)``."""
    return size[0] + caption_rows(size[0]), 4 * size[1]


def caption_rows(rows: int) -> int:
    """How many rows of pixels the captions below frames of ``rows`` rows take; an even number."""
    return max(20, 2 * (rows // 36))


def _captions(names: Sequence[str], width: int, rows: int) -> Picture:
    """White text on black, each centred below its tile; ``(rows, len(names) * width, 3)``."""
    image = Image.new("RGB", (width * len(names), rows))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=0.6 * rows)
    for index, name in enumerate(names):
        draw.text(((index + 0.5) * width, rows / 2), name, fill="white", font=font, anchor="mm")
    return np.asarray(image, np.uint8)
