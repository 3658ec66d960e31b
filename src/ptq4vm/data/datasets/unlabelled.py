"""Pictures without alpha beside a data set's clips: the float network labels them, so that any picture serves.

What is fitted to few people fails others. Pictures of anything (other people, animals, rooms, drawings) say what the
float network makes of them, which is what a quantized one shall make of them too; that there is nothing in front is as
good a label as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptq4vm.data.base import ClipDataset, ClipSets, NeedsTruth, Predictor
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.data.datasets.footage import Footage, FootageDataset
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.images import has_images, image_size, list_folders, list_frames
from ptq4vm.media.video_file import VideoFile, list_videos

KEY = "unlabelled"
"""Name of the value of any data set that names a folder of such pictures."""
STILL_FRAMES = 12
"""Frames for which a still is shown."""


class _Pictures(FootageDataset):
    """Footage, and stills: pictures in ``root`` itself, and those of a folder whose pictures differ in size."""

    def _listed(self, root: Path) -> tuple[Footage, ...]:
        if not root.is_dir():
            raise DataError(f"folder {root} does not exist; set data.{KEY} to a folder of pictures or videos")
        found = [Footage(v.path.name, VideoFile(v.path, self.frames)) for v in list_videos(root)]
        for folder in [root, *list_folders(root)]:
            if not has_images(folder):
                continue
            frames = list_frames(folder)
            if folder == root or len({image_size(path) for path in frames}) > 1:
                shown = min(STILL_FRAMES, self.frames or STILL_FRAMES)
                found += [Footage(p.relative_to(root).as_posix(), (p,) * shown) for p in frames]
            else:
                found.append(Footage(folder.name, frames[: self.frames]))
        if not found:
            raise DataError(f"folder {root} holds no pictures; expected {root}/<image>, <video file> or <clip>/<frame>")
        return tuple(replace(clip, name=f"{KEY}/{clip.name}") for clip in found)

    def _with_alpha(self, root: Path, key: str) -> tuple[FolderClip, ...]:
        return tuple(replace(clip, may_be_empty=True) for clip in super()._with_alpha(root, key))


class WithUnlabelled:
    """A data set whose calibration clips are joined by pictures that the float network labels.

    Args:
        data: The data set; what is evaluated is its own.
        root: Folder of the pictures: videos, folders of frames, and stills.
        cache: Gets the alphas; the user's cache if not given.
    """

    def __init__(self, data: ClipDataset, root: str | Path, cache: str | Path | None = None) -> None:
        self.data = data
        self.pictures = _Pictures(root, cache=cache)

    @property
    def truth(self) -> str:
        """See :attr:`ptq4vm.data.base.NeedsTruth.truth`; empty where the evaluated clips have true alphas."""
        return self.data.truth if isinstance(self.data, NeedsTruth) else ""

    def make_truth(self, predict: Predictor, key: str) -> None:
        """See :meth:`ptq4vm.data.base.NeedsTruth.make_truth`."""
        if isinstance(self.data, NeedsTruth):
            self.data.make_truth(predict, key)
        self.pictures.make_truth(predict, key)

    def clips(self) -> ClipSets:
        """List the clips; those of the pictures come last. Raises :class:`DataError`."""
        found = self.data.clips()
        return ClipSets((*found.calibration, *self.pictures.clips().calibration), found.evaluation)


def taken_out(values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Values of a data set without the one that names unlabelled pictures, and that one.

    Raises:
        ConfigError: It is no path.
    """
    own = {key: value for key, value in values.items() if key != KEY}
    folder = values.get(KEY)
    if folder is not None and not (isinstance(folder, (str, Path)) and str(folder)):
        raise ConfigError(f"data.{KEY}={folder!r}: give a folder of pictures or videos, or null")
    return own, None if folder is None else str(folder)


def with_unlabelled(data: ClipDataset, folder: str | None) -> ClipDataset:
    """The data set, joined by the pictures of a folder where one is named."""
    return data if folder is None else WithUnlabelled(data, folder)
