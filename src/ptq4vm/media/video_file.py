"""Video files whose frames are had by number, as data sets want them; :mod:`ptq4vm.media.video` decodes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from ptq4vm.errors import DataError
from ptq4vm.media.frames import BT601
from ptq4vm.media.images import natural_key
from ptq4vm.media.video import Survey, numbered_frames, survey

_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v"})


@dataclass(frozen=True)
class VideoFile:
    """A video whose frames are read by number. Building one is free; the file is looked at when first asked about.

    Attributes:
        path: The video file.
        limit: Frames that are used, from the first; all when ``None``.
    """

    path: Path
    limit: int | None = None

    def __len__(self) -> int:
        return len(self._survey.stamps)

    def __bool__(self) -> bool:
        return True  # without opening the file

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the upright frames, pixels. Raises :class:`DataError`."""
        return self._survey.size

    @property
    def reading(self) -> str:
        """How its pixels are understood: empty for one that stands upright in BT.601. Raises :class:`DataError`."""
        matrix, quarters = self._survey.look.matrix, self._survey.quarters
        return "" if (matrix, quarters) == (BT601, 0) else f"matrix {matrix}, turned {quarters}"

    def images(self, start: int, stop: int) -> Iterator[Image.Image]:
        """Frames ``start:stop`` as upright RGB pictures, decoded from the key frame before ``start``.

        Raises:
            DataError: The range is not inside the video, or the file is damaged or ends early.
        """
        if not 0 <= start < stop <= len(self):
            raise DataError(f"video {self.path} has {len(self)} frames; frames {start}:{stop} were asked for")
        yield from map(Image.fromarray, numbered_frames(self.path, self._survey, start, stop))

    @cached_property
    def _survey(self) -> Survey:
        found = survey(self.path)
        return found._replace(stamps=found.stamps[: self.limit])


def list_videos(folder: Path) -> list[VideoFile]:
    """Video files of ``folder`` in natural order; empty when it does not exist."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
    return [VideoFile(path) for path in sorted(found, key=lambda path: natural_key(path.name))]
