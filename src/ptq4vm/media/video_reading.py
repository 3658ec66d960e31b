"""Frames of video files by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
from PIL import Image

from ptq4vm.errors import DataError
from ptq4vm.media.images import natural_key

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})

_LOOK_BACK = 24  # frames; more than codecs reorder


@dataclass(frozen=True)
class VideoFile:
    """A video whose frames are read by number. Building one is free; the file is looked at when first asked about.

    Attributes:
        path: The file.
        limit: Frames that are used, from the first; all when ``None``.
    """

    path: Path
    limit: int | None = None

    def __len__(self) -> int:
        return len(self._index[0])

    def __bool__(self) -> bool:
        return True  # without opening the file

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` in pixels. Raises :class:`DataError`."""
        return self._index[1]

    def images(self, start: int, stop: int) -> Iterator[Image.Image]:
        """Frames ``start:stop`` as RGB pictures, decoded from the key frame before ``start``.

        Raises:
            DataError: The range is not inside the video, or the file is damaged or ends early.
        """
        times = self._index[0]
        if not 0 <= start < stop <= len(times):
            raise DataError(f"video {self.path} has {len(times)} frames; frames {start}:{stop} were asked for")
        number = start
        try:
            for frame in self._decoded_from(start):
                if frame.pts == times[number]:
                    yield frame.to_image()
                    number += 1
                    if number == stop:
                        return
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(f"video {self.path} cannot be decoded ({_line(error)}); replace it") from error
        raise DataError(f"video {self.path} lacks its frame {number}; replace it")

    def _decoded_from(self, start: int) -> Iterator[av.VideoFrame]:
        """Decoded frames, from one at or before ``start`` on.

        Containers seek by the order of decoding: with frames that look ahead, the key frame found may be shown after
        the one that is wanted. Then the one before it is tried, and in the end the beginning.
        """
        times = self._index[0]
        with av.open(str(self.path)) as container:
            stream = container.streams.video[0]
            for anchor in (start, max(0, start - _LOOK_BACK), 0):
                container.seek(times[anchor], stream=stream)
                frames = container.decode(stream)
                first = next(frames, None)
                if first is not None and (anchor == 0 or (first.pts is not None and first.pts <= times[start])):
                    yield first
                    yield from frames
                    return

    @cached_property
    def _index(self) -> tuple[tuple[int, ...], tuple[int, int]]:
        """Time stamps of all frames in the order in which they are shown, and the size; nothing is decoded."""
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise DataError(f"video {self.path} has no pictures; remove it")
                stream = container.streams.video[0]
                size = (stream.codec_context.height, stream.codec_context.width)
                stamps = (packet.pts for packet in container.demux(stream) if packet.size)
                times = sorted(stamp for stamp in stamps if stamp is not None)
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(f"video {self.path} cannot be read ({_line(error)}); replace it") from error
        if not times:
            raise DataError(f"video {self.path} has no frames; remove it")
        return tuple(times[: self.limit]), size


def list_videos(folder: Path) -> list[VideoFile]:
    """Video files of ``folder`` in natural order; empty when it does not exist."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".")]
    return [VideoFile(path) for path in sorted(found, key=lambda path: natural_key(path.name))]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
