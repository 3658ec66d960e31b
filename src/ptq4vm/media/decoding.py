"""How a video file is opened, and what its decoded pixels mean: colours, range and rotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import DataError
from ptq4vm.media.frames import BT601, BT709, CONVERSION, FULL_RANGE, UNKNOWN, Look, file_url
from ptq4vm.media.streams import PIPE

_HD_ROWS = 720  # from here on, players take unmarked videos for BT.709


def open_video_stream(path: Path | str, threads: str = "AUTO") -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file at its first moving picture (not the cover of a song).

    Args:
        path: The video file; text for an address, or ``-`` for the standard input.
        threads: How FFmpeg shares the work: ``AUTO`` is fastest where all is decoded, ``SLICE`` lets no frame wait for
            those after it.

    Raises:
        DataError: It cannot be read, or has no video in it.
    """
    try:
        # no "nobuffer" for streams: it throws away what is read to find out what they are, the first frames with it
        address = file_url(path) if isinstance(path, Path) else "pipe:0" if path == PIPE else path
        container = av.open(address)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} is no video that can be read ({reason}): give another file") from error
    attached = av.stream.Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not moving:
        container.close()
        raise DataError(f"{path} has no video in it: give another file")
    moving[0].thread_type = threads
    return container, moving[0]


def look_of(frame: av.VideoFrame, aspect: Fraction | None) -> Look:
    """Say how the pixels of a decoded frame are to be understood; what it leaves open is what players assume.

    Args:
        frame: The frame as it was decoded, not turned.
        aspect: Width of its pixels by their height, where the file says; that of the upright frame is kept.
    """
    is_rgb = frame.format.name.startswith(("rgb", "bgr", "gbr", "pal"))
    matrix = int(frame.colorspace)
    if is_rgb or matrix in (0, UNKNOWN):
        matrix = BT709 if frame.height >= _HD_ROWS else BT601
    spread = FULL_RANGE if int(frame.color_range) == FULL_RANGE and not is_rgb else 1
    if frame.format.name.startswith("yuvj"):
        spread = FULL_RANGE
    pixel = Fraction(aspect or 1)
    look = Look(matrix, spread, int(frame.color_primaries), int(frame.color_trc))
    return replace(look, aspect=1 / pixel if quarters_of(frame) % 2 else pixel)


def quarters_of(frame: av.VideoFrame) -> int:
    """By how many quarters, counterclockwise as in numpy, a player turns a frame."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """``(H, W)`` of a decoded frame once it is turned, pixels."""
    return (frame.width, frame.height) if quarters_of(frame) % 2 else (frame.height, frame.width)


def upright_rgb(frame: av.VideoFrame, look: Look, conversion: Mapping[str, Any] = CONVERSION) -> NDArray[np.uint8]:
    """Convert decoded pixels to ``(H, W, 3)`` uint8 RGB, turned as the file asks a player to.

    Args:
        frame: The frame as it was decoded, not turned.
        look: How its pixels are to be understood, from :func:`look_of`.
        conversion: How it is rounded: :data:`CONVERSION` or :data:`QUICK_CONVERSION`.
    """
    if conversion is CONVERSION:
        # swscale rounds exactly into planes two and a half times as fast as into rgb24, merging included, and to the
        # same values (of odd sizes one value in a thousand is one level off)
        green, blue, red = map(_plane, _converted(frame, look, conversion, "gbrp").planes)
        return _turned(cv2.merge([red, green, blue]).astype(np.uint8, copy=False), frame)
    return _turned(_converted(frame, look, conversion, "rgb24").to_ndarray(), frame)


def upright_codes(frame: av.VideoFrame, look: Look) -> NDArray[np.uint16]:
    """The same with all bits of the frame, ``(H, W, 3)`` uint16, 0 to 65535."""
    # in planes: for rgb48le, swscale of FFmpeg 8 makes full-range 4:2:0 black
    return _turned(_converted(frame, look, CONVERSION, "gbrp16le").to_ndarray(), frame)


def _converted(frame: av.VideoFrame, look: Look, conversion: Mapping[str, Any], form: str) -> av.VideoFrame:
    # swscale knows no matrix by number 0 (RGB) but needs none then
    return frame.reformat(
        format=form,
        src_colorspace=look.matrix,
        src_color_range=look.range,
        dst_color_range=FULL_RANGE,
        **conversion,
    )


def _plane(plane: Any) -> NDArray[np.uint8]:
    """A view of a plane's bytes, ``(H, W)``."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def _turned(rgb: NDArray[Any], frame: av.VideoFrame) -> NDArray[Any]:
    return np.ascontiguousarray(np.rot90(rgb, quarters_of(frame)) if quarters_of(frame) else rgb)
