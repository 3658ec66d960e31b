"""What readers hand out and writers take: frames, packets of sound, and how both are to be understood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

FULL_RANGE = 2
BT709, BT601 = 1, 5
UNKNOWN = 2


def _conversion() -> dict[str, Any]:
    options: dict[str, Any] = {}
    if int(av.__version__.split(".")[0]) >= 17:
        options["threads"] = 1
    if hasattr(Interpolation, "ACCURATE_RND"):
        options["interpolation"] = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return options


CONVERSION = _conversion()
"""For ``VideoFrame.reformat``, as far as the installed PyAV offers it. Exact rounding: without it, each conversion
from or to 4:2:0 makes a picture darker by one level. One thread: where FFmpeg 8 scales slices in threads of their own,
the last columns of one now and then overwrite the first of the next (seen in one of a hundred 10-bit frames of an odd
width)."""


class Frame(NamedTuple):
    """One frame.

    Attributes:
        index: From 0.
        image: ``(H, W, 3)`` uint8 RGB, upright.
        time: Seconds since the beginning of the file's clock.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    image: NDArray[np.uint8]
    time: Fraction


class Sound(NamedTuple):
    """A packet of an audio stream, compressed as it was.

    Attributes:
        stream: Index into :attr:`Reader.audio`.
        packet: It.
    """

    stream: int
    packet: av.Packet


@dataclass(frozen=True)
class Look:
    """How pixels of a video are to be understood; the numbers are those of ITU-T H.273, as FFmpeg uses them.

    Attributes:
        matrix: From RGB to YUV.
        range: 1: limited, 2: full.
        primaries: Of its colours.
        transfer: Its gamma curve.
        aspect: Width of a pixel by its height.
    """

    matrix: int = BT601
    range: int = 1
    primaries: int = UNKNOWN
    transfer: int = UNKNOWN
    aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class StreamInfo:
    """What is known before the first frame is handed out.

    Attributes:
        size: ``(H, W)`` of the upright frames, pixels.
        rate: Frames per second; for a camera or images what they shall be played at.
        count: Frames there are, as far as the file says; ``None`` where it does not.
        look: Colours.
        tick: Seconds; the accuracy of the frames' times.
        names: Of the frames, without suffix, where they are files.
    """

    size: tuple[int, int]
    rate: Fraction
    count: int | None = None
    look: Look = field(default_factory=Look)
    tick: Fraction = Fraction(0)
    names: tuple[str, ...] = ()


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
        """Let go of the file or camera."""
