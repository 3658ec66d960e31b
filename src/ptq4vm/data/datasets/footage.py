"""Videos without truth: the float network's alpha stands for it, so that one can calibrate on one's own domain."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from ptq4vm.data.base import DATASETS, ClipSets, Predictor
from ptq4vm.data.clips.backgrounds import Frames, turned
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.io import default_cache_dir
from ptq4vm.media.images import has_images, list_folders, list_frames
from ptq4vm.media.tensors import cover, read_rgb
from ptq4vm.media.video_file import VideoFile, list_videos

logger = logging.getLogger(__name__)

_CHUNK = 4


@dataclass(frozen=True)
class Footage:
    """A clip without alpha: its frames are all that is known of it.

    Attributes:
        name: Unique in its folder.
        frames: Image files or a video.
    """

    name: str
    frames: Frames

    @property
    def files(self) -> Sequence[Path]:
        """Files that its frames are read from."""
        return (self.frames.path,) if isinstance(self.frames, VideoFile) else self.frames

    def chunks(self) -> Iterator[Tensor]:
        """Decode all frames, a few at a time: ``(t, 3, H, W)`` uint8. Raises :class:`DataError`."""
        for start in range(0, len(self.frames), _CHUNK):
            stop = min(start + _CHUNK, len(self.frames))
            if isinstance(self.frames, VideoFile):
                images = [cover(image, self.frames.size) for image in self.frames.images(start, stop)]
            else:
                images = [read_rgb(path) for path in self.frames[start:stop]]
            sizes = {image.shape for image in images}
            if len(sizes) > 1:
                raise DataError(
                    f"clip {self.name} ({self.files[start].parent}) has frames of several sizes; make them one"
                )
            yield torch.stack(images)


@runtime_checkable
class FootageSource(Protocol):
    """A data set whose clips can be had without alpha, before any truth has been made."""

    def footage(self) -> tuple[Footage, ...]:
        """Clips to calibrate on, then those to evaluate that lack truth. Raises :class:`DataError`."""
        ...


@DATASETS.register("footage")
class FootageDataset:
    """Videos ``root/<video file>`` and clips ``root/<clip>/<frame>``; their alpha is what the float network predicts.

    The alphas are written once to the cache, for each network and each content of a clip.

    Args:
        root: Folder of the clips to calibrate on.
        evaluation_root: Folder of the clips to evaluate: more footage, or composites with truth in the folder layout.
            Those of ``root`` if not given.
        frames: Frames used of each clip, from the first; all when ``None``.
        cache: Gets the alphas; the user's cache if not given.

    Raises:
        ConfigError: ``frames`` is below 1.
    """

    truth = "truth is the FP32 network's own alpha"

    writes_to: ClassVar[tuple[str, ...]] = ("cache",)

    def __init__(
        self,
        root: str | Path,
        evaluation_root: str | Path | None = None,
        frames: int | None = 300,
        cache: str | Path | None = None,
    ) -> None:
        if frames is not None and frames < 1:
            raise ConfigError(f"data.frames must be at least 1, not {frames}")
        self.root = Path(root).expanduser()
        self.evaluation_root = None if evaluation_root is None else Path(evaluation_root).expanduser()
        self.frames = frames
        self.cache = default_cache_dir() / "footage" if cache is None else Path(cache).expanduser()
        self._key: str | None = None

    def footage(self) -> tuple[Footage, ...]:
        """Clips to calibrate on, then those to evaluate that lack truth. Raises :class:`DataError`."""
        found = self._listed(self.root)
        if self.evaluation_root is not None and not _has_truth(self.evaluation_root):
            found += self._listed(self.evaluation_root)
        return found

    def clips(self) -> ClipSets:
        """List the clips with the alphas of the last :meth:`make_truth`.

        Raises:
            DataError: A folder is missing or empty, or no truth has been made yet.
        """
        if self._key is None:
            raise DataError(f"the footage in {self.root} has no alpha yet: a float network must predict it first")
        calibration = self._with_alpha(self.root, self._key)
        if self.evaluation_root is None:
            return ClipSets(calibration, calibration)
        if _has_truth(self.evaluation_root):
            return ClipSets(calibration, find_clips(self.evaluation_root))
        return ClipSets(calibration, self._with_alpha(self.evaluation_root, self._key))

    def make_truth(self, predict: Predictor, key: str) -> None:
        """See :meth:`ptq4vm.data.base.NeedsTruth.make_truth`."""
        missing = [clip for clip in self.footage() if not self._folder(clip, key).is_dir()]
        for clip in track(missing, description="alpha of footage", transient=True, disable=not missing):
            logger.info("predicting the alpha of %s", clip.name)
            try:
                self._write(clip, predict, self._folder(clip, key))
            except OSError as error:
                raise SaveError(f"cannot write alphas to {self.cache}: {error}; set data.cache=") from error
        self._key = key

    def _write(self, clip: Footage, predict: Predictor, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
        try:
            number = 0
            for alpha in predict(clip.chunks()):
                for frame in alpha:
                    Image.fromarray(frame[0].numpy()).save(temporary / f"{number:06d}.png", compress_level=1)
                    number += 1
            if not target.is_dir():  # another process may have been first
                temporary.replace(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _with_alpha(self, root: Path, key: str) -> tuple[FolderClip, ...]:
        return tuple(
            FolderClip(clip.name, clip.frames, list_frames(self._folder(clip, key))) for clip in self._listed(root)
        )

    def _folder(self, clip: Footage, key: str) -> Path:
        digest = hashlib.sha256(f"{key}|{self.frames}{turned(clip.frames)}".encode())
        for path in clip.files:
            status = path.stat()
            digest.update(f"|{path.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode())
        return self.cache / digest.hexdigest()[:32]

    def _listed(self, root: Path) -> tuple[Footage, ...]:
        if not root.is_dir():
            raise DataError(f"folder {root} does not exist; set data.root to a folder of videos")
        found = [Footage(v.path.stem, VideoFile(v.path, self.frames)) for v in list_videos(root)]
        folders = [folder for folder in list_folders(root) if has_images(folder)]
        found += [Footage(folder.name, list_frames(folder)[: self.frames]) for folder in folders]
        if not found:
            raise DataError(f"folder {root} holds no videos; expected {root}/<video file> or {root}/<clip>/<frame>")
        names = [clip.name for clip in found]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DataError(f"folder {root} has two clips called {twice[0]!r}; rename one")
        return tuple(found)


def _has_truth(root: Path) -> bool:
    """Whether a folder is in the folder layout."""
    inside = list_folders(root)
    return any((f / "com").is_dir() for folder in inside for f in (folder, *list_folders(folder)))
