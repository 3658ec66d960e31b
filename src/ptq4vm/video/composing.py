"""From a frame and its matte to the picture that is written: composite, alpha, foreground, RGBA, comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ptq4vm.engines.base import Matte
from ptq4vm.engines.enlarging import GuidedMatte
from ptq4vm.errors import ConfigError
from ptq4vm.media.frames import Frame, Picture, Writable, cover
from ptq4vm.media.yuv import Weights

AnyMatte = Matte | GuidedMatte


class Compose(Protocol):
    """From a frame and the mattes of one or more engines to what is written: uint16 where the frame is deep."""

    def __call__(self, frame: Frame, mattes: Sequence[AnyMatte], yuv: Weights | None = None) -> Writable:
        """Make the picture of a frame; as YUV 4:2:0, if that is quick, where ``yuv`` says what makes that of colours.

        See :attr:`ptq4vm.media.writers.Writer.yuv`.
        """
        ...


OUTPUTS = ("composite", "alpha", "foreground", "rgba")
COLOURS = {
    "green": (120, 255, 155),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "blue": (0, 71, 187),
}
"""Backgrounds by name, RGB; the green is the one that RVM's authors composite on."""

_NOTHING = np.zeros((1, 1, 3), np.uint8)
DIFFERENCE_GAIN = 4
"""How many times the absolute difference is amplified in a comparison: 64/255 and above is white."""


def to_codes(values: NDArray[np.float32], deep: bool = False) -> Writable:
    """Convert values in [0, 1] to uint8 in [0, 255], or uint16 in [0, 65535] where ``deep``, rounded to nearest."""
    if deep:
        return np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16)
    return np.asarray(cv2.convertScaleAbs(values, alpha=255), np.uint8)


class Background(Protocol):
    """What stands behind the foreground."""

    def at(self, time: Fraction, size: tuple[int, int]) -> Picture:
        """What is behind a frame ``time`` seconds after the first: ``(H, W, 3)`` uint8, or ``(1, 1, 3)``."""
        ...


class Colour:
    """One colour behind every frame.

    Args:
        rgb: Red, green and blue in [0, 255].
    """

    def __init__(self, rgb: tuple[int, int, int]) -> None:
        self._rgb = np.array([[rgb]], np.uint8)

    def at(self, time: Fraction, size: tuple[int, int]) -> Picture:
        """The colour as ``(1, 1, 3)`` uint8, whatever the frame's time and size."""
        return self._rgb


class Pictures:
    """Pictures at their own speed, begun again at the end; each is scaled and cropped to cover the frame.

    Args:
        again: Gives the pictures with their times, from the first on; at least one. A single one is kept.
        rate: How many there are in a second: how long the last is shown, and how far times may be rounded.
    """

    def __init__(self, again: Callable[[], Iterator[Frame]], rate: Fraction) -> None:
        self._again, self._period = again, 1 / rate
        self._frames = again()
        self._begins = Fraction(0)  # of this round
        self._shown = next(self._frames)
        self._ahead = self._following()
        self._kept: tuple[Frame, Picture] | None = None

    def at(self, time: Fraction, size: tuple[int, int]) -> Picture:
        """The picture that is shown at ``time``, ``(H, W, 3)`` uint8, brought to ``size`` = ``(H, W)``."""
        while self._ahead is not None and self._begins + self._ahead.time <= time + self._period / 4:
            self._shown = self._ahead
            self._ahead = self._following()
        if self._kept is None or self._kept[0] is not self._shown or self._kept[1].shape[:2] != size:
            self._kept = self._shown, np.ascontiguousarray(cover(self._shown.image, size))
        return self._kept[1]

    def _following(self) -> Frame | None:
        """The frame after the one that is shown; ``None`` where that is the only one."""
        found = next(self._frames, None)
        if found is None and self._shown.index > 0:
            self._begins += self._shown.time + self._period
            self._frames = self._again()
            found = next(self._frames)
        return found


def parse_colour(text: str) -> tuple[int, int, int] | None:
    """A colour of :data:`COLOURS`, or as CSS writes it (``#rgb``, ``#rrggbb``, ``Red``, ``rgb(255, 0, 0)``).

    Returns:
        Red, green and blue, 0 to 255; ``None`` where it is no colour.

    Raises:
        ConfigError: It begins with ``#`` and is no colour, or it is not opaque.
    """
    if text.lower() in COLOURS:
        return COLOURS[text.lower()]
    try:
        found = ImageColor.getrgb(text)
    except ValueError:
        if text.startswith("#"):
            raise ConfigError(
                f"background={text} is no colour: write it as '#rgb', '#rrggbb' or by its name, as white"
            ) from None
        return None
    if len(found) != 3:
        raise ConfigError(f"background={text} is not opaque: leave its last part out, or take output=rgba")
    return found


def composite(matte: Matte, background: NDArray[np.float32], deep: bool = False) -> Writable:
    """``alpha * F + (1 - alpha) * background``, ``(H, W, 3)``; by OpenCV, which takes a fifth of NumPy's time."""
    # a colour as OpenCV takes it: four numbers of double precision
    behind = background if background.ndim == 3 else np.array([*background, 0], np.float64)
    mixed = cv2.subtract(matte.foreground, behind)
    mixed = cv2.add(cv2.multiply(mixed, cv2.merge([matte.alpha] * 3)), behind)
    return to_codes(np.asarray(mixed, np.float32), deep)


def alpha_picture(alpha: NDArray[np.float32], deep: bool = False) -> Writable:
    """Alpha as grey, ``(H, W, 3)``."""
    codes = to_codes(alpha, deep)
    return np.asarray(cv2.merge([codes] * 3), codes.dtype)


def foreground_picture(matte: Matte, deep: bool = False) -> Writable:
    """The foreground's colour, not multiplied by alpha; black where alpha is 0, ``(H, W, 3)``."""
    codes = to_codes(matte.foreground, deep)
    return np.asarray(cv2.copyTo(codes, (matte.alpha > 0).view(np.uint8)), codes.dtype)


def rgba_picture(matte: Matte, deep: bool = False) -> Writable:
    """Straight (not premultiplied) RGBA, ``(H, W, 4)``."""
    alpha = to_codes(matte.alpha, deep)
    return np.asarray(cv2.merge([*cv2.split(foreground_picture(matte, deep)), alpha]), alpha.dtype)


def composer(output: str, background: Background) -> Compose:
    """What makes one of :data:`OUTPUTS` from the first engine's matte. Raises :class:`ConfigError`."""
    make: dict[str, Callable[[Frame, Matte, bool], Writable]] = {
        "composite": lambda frame, matte, deep: composite(matte, _behind(background, frame), deep),
        "alpha": lambda frame, matte, deep: alpha_picture(matte.alpha, deep),
        "foreground": lambda frame, matte, deep: foreground_picture(matte, deep),
        "rgba": lambda frame, matte, deep: rgba_picture(matte, deep),
    }
    if output not in make:
        raise ConfigError(f"output={output} is unknown: use one of {', '.join(OUTPUTS)}")

    def compose(frame: Frame, mattes: Sequence[AnyMatte], yuv: Weights | None = None) -> Writable:
        matte, deep = mattes[0], frame.deep
        if isinstance(matte, GuidedMatte):
            behind = background.at(frame.time, frame.image.shape[:2]) if output == "composite" else _NOTHING
            made = matte.picture(output, behind, yuv) if deep is None else None
            if made is not None:
                return made
            matte = matte.whole
        if deep is not None and output != "alpha":
            matte = matte._replace(foreground=deep.foreground(frame.image, matte.foreground))
        return make[output](frame, matte, deep is not None)

    return compose


def _behind(background: Background, frame: Frame) -> NDArray[np.float32]:
    """The background of a frame in [0, 1], in the frame's own codes; ``(3,)`` for one colour."""
    codes = background.at(frame.time, frame.image.shape[:2])
    found = np.divide(codes[0, 0] if codes.shape[:2] == (1, 1) else codes, 255, dtype=np.float32)
    return found if frame.deep is None else frame.deep.grade.ordinary(found)


def comparison(label: str) -> Compose:
    """Make what shows input, FP32 alpha, quantized alpha and their difference side by side, over a line of captions.

    It takes two mattes: the float network's, then the quantized one's. Its pictures are of :func:`comparison_size`.

    Args:
        label: What the captions call the quantized network, such as ``W4A4``.
    """
    names = ("input", "FP32 alpha", f"{label} alpha", f"difference x{DIFFERENCE_GAIN}")

    def compose(frame: Frame, mattes: Sequence[AnyMatte], yuv: Weights | None = None) -> Picture:
        first, second = mattes[0].alpha, mattes[1].alpha
        difference = np.minimum(np.abs(first - second) * DIFFERENCE_GAIN, 1)
        tiles = [frame.image, *(alpha_picture(alpha) for alpha in (first, second, difference))]
        row = np.concatenate(tiles, axis=1)
        return np.concatenate([row, _captions(names, frame.image.shape[1], caption_rows(frame.image.shape[0]))], axis=0)

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
