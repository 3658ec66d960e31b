"""Clips on disk: ready composites, and foregrounds that are composited when read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ptq4vm.data.base import frame_window
from ptq4vm.data.clips.backgrounds import Frames, show_at
from ptq4vm.data.compositing import composite_uint8
from ptq4vm.errors import DataError
from ptq4vm.media.images import image_size, list_frames
from ptq4vm.media.tensors import Box, cover, read_stack
from ptq4vm.media.video_file import VideoFile
from ptq4vm.types import Clip, ClipSource


@dataclass(frozen=True)
class FolderClip:
    """A clip stored as composites with their alpha, one image file per frame.

    Attributes:
        name: Unique name inside the dataset.
        com: Composite of each frame, or a video of them.
        pha: Alpha of each frame.
        fgr: Foreground of each frame, or ``None`` where it is unknown.
        may_be_empty: Whether an alpha of zero in every frame is right: nothing is in front.

    Raises:
        DataError: A list is empty or the lists differ in length.
    """

    name: str
    com: Frames
    pha: Sequence[Path]
    fgr: Sequence[Path] | None = None
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        _check_counts(self.name, self.com, self.pha)
        if self.fgr is not None:
            _check_counts(self.name, self.com, self.fgr)

    @classmethod
    def from_folder(cls, folder: Path, name: str | None = None) -> FolderClip:
        """List ``folder/{com,pha[,fgr]}``. Raises :class:`DataError` where they are missing or do not match."""
        fgr = list_frames(folder / "fgr") if (folder / "fgr").is_dir() else None
        return cls(name or folder.name, list_frames(folder / "com"), list_frames(folder / "pha"), fgr)

    @property
    def num_frames(self) -> int:
        """How many frames the clip has."""
        return len(self.com)

    @cached_property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the first composite."""
        return self.com.size if isinstance(self.com, VideoFile) else image_size(self.com[0])

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        """Decode frames ``start:stop``.

        Raises:
            DataError: The range is not inside the clip, a file is unreadable or truncated, sizes differ inside the
                clip, or (where all frames are read) alpha is zero in every frame.
        """
        window, size = frame_window(self, start, stop), self.size
        foreground = None if self.fgr is None else read_stack(self.fgr[window], 3, size)
        clip = Clip(self.name, _composites(self.com, window, size), read_stack(self.pha[window], 1, size), foreground)
        if not self.may_be_empty:
            _check_alpha(self, clip.alpha, self.pha[0])
        return clip

    def read_box(self, start: int, stop: int, box: Box) -> Clip:
        """See :class:`ptq4vm.data.base.BoxedClip`. Raises :class:`DataError`."""
        window, size = frame_window(self, start, stop), self.size
        return Clip(self.name, _composites(self.com, window, size, box), read_stack(self.pha[window], 1, size, box))


@dataclass(frozen=True)
class CompositeClip:
    """A foreground clip with alpha, composited over a background clip when read: ``I = alpha F + (1 - alpha) B``.

    A background that is shorter plays forth and back; one of another size is scaled to cover and cropped.

    Attributes:
        name: Unique name inside the dataset.
        fgr: Foreground colours of each frame.
        pha: Alpha of each frame.
        background: Frames of the background, or a video; one is enough.

    Raises:
        DataError: A list is empty or ``fgr`` and ``pha`` differ in length.
    """

    name: str
    fgr: Sequence[Path]
    pha: Sequence[Path]
    background: Frames

    def __post_init__(self) -> None:
        _check_counts(self.name, self.fgr, self.pha)
        if not self.background:
            raise DataError(f"clip {self.name} has no background frames")

    @property
    def num_frames(self) -> int:
        """How many frames the clip has: as many as its foreground."""
        return len(self.fgr)

    @cached_property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` of the first foreground."""
        return image_size(self.fgr[0])

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        """Decode and composite frames ``start:stop``. Raises :class:`DataError` as :meth:`FolderClip.read` does."""
        clip = self._read(frame_window(self, start, stop), None)
        _check_alpha(self, clip.alpha, self.pha[0])
        return clip

    def read_box(self, start: int, stop: int, box: Box) -> Clip:
        """See :class:`ptq4vm.data.base.BoxedClip`. Raises :class:`DataError`."""
        return self._read(frame_window(self, start, stop), box)

    def _read(self, window: slice, box: Box | None) -> Clip:
        size = self.size
        foreground = read_stack(self.fgr[window], 3, size, box)
        alpha = read_stack(self.pha[window], 1, size, box)
        background = show_at(self.background, range(window.start, window.stop), size, box)
        return Clip(self.name, composite_uint8(foreground, alpha, background), alpha, foreground)

    def read_foreground(self, times: Sequence[int]) -> tuple[Tensor, Tensor]:
        """See :class:`ptq4vm.data.base.LayeredClip`. Raises :class:`DataError`."""
        fgr, pha = ([files[time] for time in times] for files in (self.fgr, self.pha))
        return read_stack(fgr, 3, self.size), read_stack(pha, 1, self.size)

    def read_background(self, times: Sequence[int]) -> Tensor:
        """See :class:`ptq4vm.data.base.LayeredClip`. Raises :class:`DataError`."""
        return show_at(self.background, times, self.size)


def may_be_empty(source: ClipSource) -> bool:
    """Whether a clip may show nothing in front."""
    return bool(getattr(source, "may_be_empty", False))


def check_has_subject(source: ClipSource) -> None:
    """Decode frames until one shows a subject: usually the first.

    Raises:
        DataError: Alpha is zero in every frame.
    """
    for index in range(source.num_frames):
        if source.read(index, index + 1).alpha.any():
            return
    raise DataError(f"clip {source.name} has an alpha of zero in every frame; remove the clip or mend its alpha")


def _composites(com: Frames, window: slice, size: tuple[int, int], box: Box | None = None) -> Tensor:
    if isinstance(com, VideoFile):
        return torch.stack([cover(image, size, box) for image in com.images(window.start, window.stop)])
    return read_stack(com[window], 3, size, box)


def _check_counts(name: str, first: Frames, second: Sequence[Path]) -> None:
    if not first or not second:
        raise DataError(f"clip {name} has no frames")
    if len(first) != len(second):
        where = first.path if isinstance(first, VideoFile) else first[0].parent
        raise DataError(
            f"clip {name}: {where} has {len(first)} frames but {second[0].parent} has {len(second)}; "
            "give every frame a file in both"
        )


def _check_alpha(source: ClipSource, alpha: Tensor, first: Path) -> None:
    if len(alpha) == source.num_frames and not alpha.any():
        raise DataError(
            f"clip {source.name} has an alpha of zero in every frame ({first.parent}); "
            "remove the clip or mend its alpha"
        )
