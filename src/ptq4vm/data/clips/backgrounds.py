"""What people are put before: clips of images, video files, single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ptq4vm.data.compositing import ping_pong
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.images import has_images, list_folders, list_frames, orientation
from ptq4vm.media.tensors import Box, cover, read_cover_stack
from ptq4vm.media.video_file import VideoFile, list_videos

Frames = Sequence[Path] | VideoFile
"""Frames of a clip: an image file each, or a video file."""
KINDS = ("any", "video", "image")


@dataclass(frozen=True)
class BackgroundClip:
    """A background of one frame or more.

    Attributes:
        name: Name that no other background of the folder has.
        frames: Image files or a video, decoded when they are shown.
    """

    name: str
    frames: Frames


@runtime_checkable
class BackgroundSource(Protocol):
    """A collection of backgrounds that can be listed, split by split."""

    def backgrounds(self, split: str = "train") -> tuple[BackgroundClip, ...]:
        """List the backgrounds of a split. Raises :class:`ptq4vm.errors.DataError` when there are none."""
        ...


@dataclass(frozen=True)
class BackgroundFolder:
    """Backgrounds of a folder, which may be divided into ``train`` and ``test`` (or ``valid``).

    Attributes:
        root: Folder that is searched for backgrounds.
        kind: ``video``: clips ``<clip>/<frame>`` and video files; ``image``: single images, also in subfolders;
            ``any``: clips and video files, or where there are none, single images.

    Raises:
        ConfigError: The kind is unknown.
    """

    root: Path
    kind: str = "any"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind!r} of backgrounds is unknown: use one of {', '.join(KINDS)}")

    def __str__(self) -> str:
        return str(self.root)

    def backgrounds(self, split: str = "train") -> tuple[BackgroundClip, ...]:
        """List the backgrounds of a split; those of the whole folder where it is not divided.

        Raises:
            DataError: There are none.
        """
        folder = self._part(split)
        found = [] if self.kind == "image" else _clips(folder)
        if not found and self.kind != "video":
            found = _images(folder, deep=self.kind == "image")
        if not found:
            expected = _expected(folder, self.kind)
            raise DataError(f"folder {folder} is missing or holds no backgrounds; expected {expected}")
        return tuple(found)

    def _part(self, split: str) -> Path:
        others = ("test", "valid", "train") if split == "test" else (split,)
        return next((self.root / name for name in others if (self.root / name).is_dir()), self.root)


def show(frames: Frames, start: int, stop: int, size: tuple[int, int]) -> Tensor:
    """A background at times ``start:stop``, played forth and back, scaled to cover ``size`` = ``(H, W)`` and cropped.

    Returns:
        ``(stop - start, 3, H, W)`` uint8.

    Raises:
        DataError: A file is damaged.
    """
    return show_at(frames, range(start, stop), size)


def show_at(frames: Frames, times: Sequence[int], size: tuple[int, int], box: Box | None = None) -> Tensor:
    """:func:`show` at any ``times``, in any order, and only ``box`` of it: ``(len(times), 3, H, W)`` uint8."""
    numbers = [ping_pong(i, len(frames)) for i in times]
    if not isinstance(frames, VideoFile):
        return read_cover_stack([frames[number] for number in numbers], size, box)
    first = min(numbers)
    images = frames.images(first, max(numbers) + 1)
    seen = {first + i: cover(image, size, box) for i, image in enumerate(images)}
    return torch.stack([seen[number] for number in numbers])


def turned(frames: Frames) -> str:
    """Words for pixels that are not shown as they lie in the file, by rotation or colours; empty for most clips.

    They tell what was made of a clip before such marks were heeded from what is made of it now.

    Raises:
        DataError: The first file is damaged.
    """
    if isinstance(frames, VideoFile):
        return frames.reading
    marked = orientation(frames[0])
    return "" if marked == 1 else f"orientation {marked}"


def as_source(backgrounds: str | Path | BackgroundSource) -> BackgroundSource:
    """Make a collection of backgrounds of a folder's path; a collection is given back as it is."""
    return BackgroundFolder(Path(backgrounds).expanduser()) if isinstance(backgrounds, str | Path) else backgrounds


def pair(count: int, backgrounds: Sequence[BackgroundClip], pairs: int, seed: int) -> list[tuple[int, BackgroundClip]]:
    """Give each of ``count`` foregrounds ``pairs`` different backgrounds, one each first: ``(index, background)``."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(backgrounds), generator=generator).tolist()
    return [
        (index, backgrounds[order[(index + shift) % len(order)]]) for shift in range(pairs) for index in range(count)
    ]


def _clips(folder: Path) -> list[BackgroundClip]:
    clips = [BackgroundClip(inner.name, list_frames(inner)) for inner in list_folders(folder) if has_images(inner)]
    return clips + [BackgroundClip(video.path.stem, video) for video in list_videos(folder)]


def _images(folder: Path, deep: bool) -> list[BackgroundClip]:
    folders = [folder, *(list_folders(folder) if deep else [])]
    return [
        BackgroundClip(path.relative_to(folder).with_suffix("").as_posix().replace("/", "-"), (path,))
        for inner in folders
        if has_images(inner)
        for path in list_frames(inner)
    ]


def _expected(folder: Path, kind: str) -> str:
    clips, images = f"{folder}/<clip>/<frame> or video files", f"{folder}/<image>"
    return {"any": f"{clips}, or {images}", "video": clips, "image": images}[kind]
