"""VideoMatte240K's layout: foregrounds and alphas in folders of their own, composited over any backgrounds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ptq4vm.data.base import DATASETS, ClipSets
from ptq4vm.data.clips.backgrounds import BackgroundClip, BackgroundSource, as_source, pair
from ptq4vm.data.clips.foregrounds import ClipForeground, Foreground
from ptq4vm.data.clips.sources import CompositeClip
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.images import list_folders, list_frames
from ptq4vm.types import ClipSource

logger = logging.getLogger(__name__)


@DATASETS.register("videomatte")
class VideoMatteDataset:
    """Calibrates on ``root/train/{fgr,pha}/<clip>``, evaluates on ``root/eval`` (folder layout) where it exists.

    Without ``root/eval``, the clips that are held back from calibration are evaluated over backgrounds.

    Args:
        root: Folder of the data set.
        backgrounds: Folder of background clips ``<clip>/<frame>``, video files or single images, or a collection of
            backgrounds; ``root/backgrounds`` if not given.
        pairs_per_clip: With how many backgrounds each foreground clip is composited, each giving a clip; those
            held back too.
        seed: Which foreground meets which background.
        held_back: Names of training clips that are not calibrated on.

    Raises:
        ConfigError: ``pairs_per_clip`` is below 1.
    """

    def __init__(
        self,
        root: str | Path,
        backgrounds: str | Path | BackgroundSource | None = None,
        pairs_per_clip: int = 1,
        seed: int = 0,
        held_back: Sequence[str] = (),
    ) -> None:
        if pairs_per_clip < 1:
            raise ConfigError(f"pairs_per_clip must be at least 1, not {pairs_per_clip}")
        self.root = Path(root).expanduser()
        self.source = as_source(self.root / "backgrounds" if backgrounds is None else backgrounds)
        self.pairs_per_clip = pairs_per_clip
        self.seed = seed
        self.held_back = tuple(str(name) for name in held_back)

    def clips(self) -> ClipSets:
        """List the clips.

        Raises:
            DataError: A folder is missing or empty, or foreground and alpha do not match.
            ConfigError: ``pairs_per_clip`` exceeds the number of backgrounds.
        """
        calibration = self._composited(self._listed("train"), self.source.backgrounds("train"), self.pairs_per_clip)
        folder = self.root / "eval"
        if folder.is_dir():
            return ClipSets(calibration, find_clips(folder))
        kept = self._held_back()
        if not kept:
            return ClipSets(calibration, ())
        return ClipSets(calibration, self._composited(kept, self.source.backgrounds("test"), self.pairs_per_clip))

    def foregrounds(self, split: str = "train") -> tuple[Foreground, ...]:
        """Clips of ``train`` (without those held back), ``valid`` (those held back) or ``test``.

        Raises:
            DataError: There are none, or foreground and alpha do not match.
        """
        found = self._held_back() if split == "valid" else self._listed(split)
        if not found:
            raise DataError(
                f"none of the clips held back, {', '.join(self.held_back)}, is in {self.root / 'train'}/fgr"
            )
        return found

    def _listed(self, split: str) -> tuple[ClipForeground, ...]:
        folder = self.root / split
        found = list_folders(folder / "fgr")
        if not found:
            others = split == "test" and (self.root / "train" / "fgr").is_dir()
            hint = f", or split=train for those of {self.root / 'train'}" if others else ""
            raise DataError(
                f"folder {folder / 'fgr'} is missing or holds no clips; expected {folder}/fgr/<clip>/<frame>{hint}"
            )
        there = {path.name for path in list_folders(folder / "pha")}
        for extra in sorted(there - {path.name for path in found}):
            raise DataError(f"folder {folder / 'fgr' / extra} does not exist, but {folder / 'pha' / extra} does")
        missing = [name for name in self.held_back if not (folder / "fgr" / name).is_dir()]
        if split == "train" and missing:
            logger.warning("clips to hold back that are not in %s: %s", folder / "fgr", ", ".join(missing))
        chosen = [path for path in found if split != "train" or path.name not in self.held_back]
        if not chosen:
            raise DataError(f"folder {folder / 'fgr'} holds only clips that are held back; set data.held_back=[]")
        return tuple(_foreground(folder, path.name) for path in chosen)

    def _held_back(self) -> tuple[ClipForeground, ...]:
        folder = self.root / "train"
        return tuple(_foreground(folder, name) for name in self.held_back if (folder / "fgr" / name).is_dir())

    def _composited(
        self, clips: Sequence[ClipForeground], backgrounds: Sequence[BackgroundClip], pairs: int
    ) -> tuple[ClipSource, ...]:
        if pairs > len(backgrounds):
            raise ConfigError(f"pairs_per_clip is {pairs} but {self.source} holds {len(backgrounds)} backgrounds")
        return tuple(
            CompositeClip(f"{clips[i].name}+{background.name}", clips[i].fgr, clips[i].pha, background.frames)
            for i, background in pair(len(clips), backgrounds, pairs, self.seed)
        )


def _foreground(folder: Path, name: str) -> ClipForeground:
    fgr, pha = (list_frames(folder / kind / name) for kind in ("fgr", "pha"))
    if len(fgr) != len(pha):
        raise DataError(
            f"clip {name}: {folder / 'fgr' / name} has {len(fgr)} frames but {folder / 'pha' / name} has {len(pha)}; "
            "give every frame a file in both"
        )
    return ClipForeground(name, fgr, pha)
