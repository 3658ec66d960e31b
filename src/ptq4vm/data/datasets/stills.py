"""Stills with alpha (Distinctions-646, Adobe Image Matting), set in motion over backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptq4vm.data.base import DATASETS, ClipSets
from ptq4vm.data.clips.backgrounds import BackgroundSource, as_source, pair
from ptq4vm.data.clips.foregrounds import Foreground, StillClip, StillForeground, stills
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.images import list_frames
from ptq4vm.types import ClipSource


@DATASETS.register("stills")
class StillsDataset:
    """Calibrates on ``root/train/{fgr,pha}/<name>``, evaluates on ``root/eval`` (folder layout) or ``root/test/...``.

    Where ``root`` is not divided (``root/{fgr,pha}``), all stills serve for both. Each still becomes a clip by mild
    affine motion (:class:`ptq4vm.data.clips.foregrounds.StillForeground`).

    Args:
        root: Folder of the data set.
        backgrounds: Folder of background clips, video files or single images, or a collection of backgrounds;
            ``root/backgrounds`` if not given.
        names: A text file with the names of the stills to use, one a line, with or without suffix (the lists of stills
            that show people); all if not given.
        frames: Frames of a clip.
        size: ``(H, W)`` of a clip, pixels.
        pairs_per_clip: With how many backgrounds each still is composited.
        seed: Seed of the motions, and of which still meets which background.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        backgrounds: str | Path | BackgroundSource | None = None,
        names: str | Path | None = None,
        frames: int = 100,
        size: tuple[int, int] = (512, 512),
        pairs_per_clip: int = 1,
        seed: int = 0,
    ) -> None:
        numbers = {"frames": frames, "size": min(size), "pairs_per_clip": pairs_per_clip}
        for key, value in numbers.items():
            if value < 1:
                raise ConfigError(f"data.{key} must be at least 1, not {value}")
        self.root = Path(root).expanduser()
        self.source = as_source(self.root / "backgrounds" if backgrounds is None else backgrounds)
        self.names = None if names is None else Path(names).expanduser()
        self.frames = frames
        self.size = (int(size[0]), int(size[1]))
        self.pairs_per_clip = pairs_per_clip
        self.seed = seed

    def clips(self) -> ClipSets:
        """List the clips.

        Raises:
            DataError: A folder is missing or empty, a still lacks its alpha, or a name of the list is not there.
            ConfigError: ``pairs_per_clip`` exceeds the number of backgrounds.
        """
        divided = (self.root / "train").is_dir()
        calibration = self._composited("train", self.pairs_per_clip)
        folder = self.root / "eval"
        if folder.is_dir():
            return ClipSets(calibration, find_clips(folder))
        if divided and not (self.root / "test").is_dir():
            return ClipSets(calibration, ())
        return ClipSets(calibration, self._composited("test", 1))

    def foregrounds(self, split: str = "train") -> tuple[Foreground, ...]:
        """Stills of a split; all where ``root`` is not divided. Raises :class:`DataError`."""
        return self._stills(split)

    def _stills(self, split: str) -> tuple[StillForeground, ...]:
        folder = self.root / split if (self.root / split).is_dir() else self.root
        if not (folder / "fgr").is_dir():
            raise DataError(
                f"folder {folder / 'fgr'} does not exist; expected {self.root}/[train|test]/{{fgr,pha}}/<name>"
            )
        found = stills(folder, list_frames(folder / "fgr"), list_frames(folder / "pha"), self.seed)
        return self._named(found, folder) if self.names is not None else found

    def _named(self, found: Sequence[StillForeground], folder: Path) -> tuple[StillForeground, ...]:
        assert self.names is not None
        known = {still.name: still for still in found} | {still.fgr.name: still for still in found}
        try:
            lines = self.names.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"names {self.names} cannot be read ({error}); give a text file, one name a line"
            ) from error
        wanted = [line.strip() for line in lines if line.strip()]
        chosen = [known[name] for name in wanted if name in known]
        if len(chosen) == len(wanted) and chosen:
            return tuple(chosen)
        elsewhere = [split for split in ("train", "test") if (self.root / split / "fgr").is_dir()]
        if chosen and len(elsewhere) > 1:  # a list may name stills of both
            return tuple(chosen)
        missing = [name for name in wanted if name not in known]
        if missing:
            raise DataError(f"{folder / 'fgr'} has no {missing[0]!r}, which {self.names} names; correct one of them")
        raise DataError(f"names {self.names} holds no names; give one a line")

    def _composited(self, split: str, pairs: int) -> tuple[ClipSource, ...]:
        found, backgrounds = self._stills(split), self.source.backgrounds(split)
        if pairs > len(backgrounds):
            raise ConfigError(f"pairs_per_clip is {pairs} but {self.source} holds {len(backgrounds)} backgrounds")
        return tuple(
            StillClip(f"{found[i].name}+{background.name}", found[i], background.frames, self.frames, self.size)
            for i, background in pair(len(found), backgrounds, pairs, self.seed)
        )
