"""Frames of video files by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
from PIL import Image

from ptq4vm.data.images import natural_key
from ptq4vm.errors import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})


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
        wanted = iter(times[start:stop])
        following: int | None = next(wanted)
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                container.seek(times[start], stream=stream)
                for frame in container.decode(stream):
                    if frame.pts == following:
                        yield frame.to_image()
                        following = next(wanted, None)
                        if following is None:
                            return
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(f"video {self.path} cannot be decoded ({_line(error)}); replace it") from error
        raise DataError(f"video {self.path} ends before its frame {times.index(following or 0)}; replace it")

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
