"""What readers hand out and writers take: frames, packets of sound, and how both are to be understood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from ptq4vm.media.grading import Deep

FULL_RANGE = 2
BT709, BT601 = 1, 5
UNKNOWN = 2


def _exact() -> dict[str, Any]:
    if not hasattr(Interpolation, "ACCURATE_RND"):
        return {}
    return {"interpolation": Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT}


QUICK_CONVERSION: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
"""For ``VideoFrame.reformat``, as far as the installed PyAV offers it. One thread: where FFmpeg 8 scales slices in
threads of their own, the last columns of one now and then overwrite the first of the next (seen in one of a hundred
10-bit frames of an odd width). Its rounding is FFmpeg's own, about one level too dark from 4:2:0: data sets keep it,
since every number measured on videos so far was measured with it."""

CONVERSION: dict[str, Any] = QUICK_CONVERSION | _exact()
"""The same with exact rounding, and colours interpolated between their samples: what matting reads and writes."""


class Frame(NamedTuple):
    """One decoded frame of a video, a camera or a folder of images.

    Attributes:
        index: Number of the frame in its source, from 0.
        image: ``(H, W, 3)`` uint8 RGB, upright.
        time: Seconds since the beginning of the source.
        deep: The same with all its bits, where the source has more than 8 and they are wanted.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    image: NDArray[np.uint8]
    time: Fraction
    deep: Deep | None = None


class Sound(NamedTuple):
    """A packet of an audio stream, compressed as it was.

    Attributes:
        stream: Index into :attr:`Reader.audio`.
        packet: The compressed packet, with its time stamps.
    """

    stream: int
    packet: av.Packet


@dataclass(frozen=True)
class Look:
    """How pixels of a video are to be understood; the numbers are those of ITU-T H.273, as FFmpeg uses them.

    Attributes:
        matrix: Number of the matrix from RGB to YUV (1: BT.709, 5 and 6: BT.601).
        range: Range of the codes, 1 for limited (16 to 235), 2 for full (0 to 255).
        primaries: Number of the set of primary colours.
        transfer: Number of the transfer function (gamma curve).
        aspect: Width of a pixel by its height.
    """

    matrix: int = BT601
    range: int = 1
    primaries: int = UNKNOWN
    transfer: int = UNKNOWN
    aspect: Fraction = Fraction(1)


class Chapter(NamedTuple):
    """A chapter of a film.

    Attributes:
        start: Where it begins, seconds from the beginning of the film.
        end: Where it ends, likewise.
        tags: What is said of it: its title.
    """

    start: Fraction
    end: Fraction
    tags: Mapping[str, str]


@dataclass(frozen=True)
class StreamInfo:
    """What a reader knows of its frames before it hands out the first.

    Attributes:
        size: ``(H, W)`` of the upright frames, pixels.
        rate: Frames per second; for a camera or images what they shall be played at.
        count: Frames there are, as far as the file says; ``None`` where it does not.
        look: How the source's pixels are to be understood.
        tick: Accuracy of the frames' times, seconds; 0 where it is not known.
        names: File names of the frames without suffix, where they are files; else empty.
        files: Files that the frames are read from, one each, where they are files; else empty.
        tags: What the file says of itself as a whole: title, artist, ...
        chapters: The chapters that the file names, in order.
        left_out: What else is in the file and is not handed out, in words ("1 subtitle track").
        depth: Bits a channel of what is handed out.
    """

    size: tuple[int, int]
    rate: Fraction
    count: int | None = None
    look: Look = field(default_factory=Look)
    tick: Fraction = Fraction(0)
    names: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    chapters: tuple[Chapter, ...] = ()
    left_out: tuple[str, ...] = ()
    depth: int = 8

    def until(self, stop: int | None) -> StreamInfo:
        """The same of a film that ends after ``stop`` frames."""
        if stop is None:
            return self
        end = stop / self.rate
        kept = (c._replace(end=min(c.end, end)) for c in self.chapters if c.start < end)
        return replace(self, chapters=tuple(kept))


class Reader(ABC):
    """Frames in order, once. :meth:`read` is called from one thread, :meth:`close` after it has ended."""

    info: StreamInfo
    audio: tuple[av.AudioStream, ...] = ()

    @abstractmethod
    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame | Sound]:
        """Frames ``start:stop``, and the packets of sound that belong to them, in the order of the file.

        Raises:
            DataError: A file is damaged; what came before it has been handed out.
        """

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Close the file or camera; nothing can be read afterwards."""


Sample = TypeVar("Sample", np.uint8, np.uint16)
"""Type of a picture's samples."""

Picture = NDArray[np.uint8]
"""``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA, uint8."""

Writable = NDArray[np.unsignedinteger[Any]]
"""The same, or uint16 with more bits, or ``(3 * H / 2, W)`` uint8, YUV 4:2:0 (Y, U and V one after the other) where
a writer says that it takes such: what writers of videos take."""


def file_url(path: Path) -> str:
    """A path as FFmpeg takes it for a file's, even where it looks like a protocol's (``12:30:00.mp4``)."""
    return f"file:{path}"


def cover(picture: NDArray[Sample], size: tuple[int, int]) -> NDArray[Sample]:
    """Scale so that ``size`` = ``(H, W)`` is covered, and crop around the middle."""
    rows, columns = picture.shape[:2]
    if (rows, columns) == size:
        return picture
    scale = max(size[0] / rows, size[1] / columns)
    scaled = max(size[0], round(rows * scale)), max(size[1], round(columns * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(picture, (scaled[1], scaled[0]), interpolation=how)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return np.asarray(resized[top : top + size[0], left : left + size[1]], picture.dtype)
