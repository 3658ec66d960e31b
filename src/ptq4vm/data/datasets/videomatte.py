"""VideoMatte240K's layout: foregrounds and alphas in folders of their own, composited over any backgrounds."""

from __future__ import annotations

from pathlib import Path

import torch

from ptq4vm.data.base import ClipSets
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.data.images import has_images, list_folders, list_frames
from ptq4vm.data.sources import CompositeClip
from ptq4vm.errors import ConfigError, DataError


class VideoMatteDataset:
    """Calibrates on ``root/train/{fgr,pha}/<clip>``, evaluates on ``root/eval`` (folder layout) where it exists.

    Args:
        root: Folder of the data set.
        backgrounds: Folder of background clips ``<clip>/<frame>`` or of single images; ``root/backgrounds`` if not
            given.
        pairs_per_clip: With how many backgrounds each foreground clip is composited, each giving a clip.
        seed: Which foreground meets which background.

    Raises:
        ConfigError: ``pairs_per_clip`` is below 1.
    """

    def __init__(
        self, root: str | Path, backgrounds: str | Path | None = None, pairs_per_clip: int = 1, seed: int = 0
    ) -> None:
        if pairs_per_clip < 1:
            raise ConfigError(f"pairs_per_clip must be at least 1, not {pairs_per_clip}")
        self.root = Path(root).expanduser()
        self.backgrounds = self.root / "backgrounds" if backgrounds is None else Path(backgrounds).expanduser()
        self.pairs_per_clip = pairs_per_clip
        self.seed = seed

    def clips(self) -> ClipSets:
        """List the clips.

        Raises:
            DataError: A folder is missing or empty, or foreground and alpha do not match.
            ConfigError: ``pairs_per_clip`` exceeds the number of backgrounds.
        """
        evaluation = self.root / "eval"
        return ClipSets(self._calibration(), find_clips(evaluation) if evaluation.is_dir() else ())

    def _calibration(self) -> tuple[CompositeClip, ...]:
        train = self.root / "train"
        folders = list_folders(train / "fgr")
        if not folders:
            raise DataError(f"folder {train / 'fgr'} is missing or holds no clips; expected {train}/fgr/<clip>/<frame>")
        backgrounds = _find_backgrounds(self.backgrounds)
        if self.pairs_per_clip > len(backgrounds):
            raise ConfigError(
                f"pairs_per_clip is {self.pairs_per_clip} but {self.backgrounds} holds {len(backgrounds)} backgrounds"
            )
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(backgrounds), generator=generator).tolist()
        clips = []
        for shift in range(self.pairs_per_clip):
            for position, folder in enumerate(folders):
                label, background = backgrounds[order[(position + shift) % len(order)]]
                frames = list_frames(folder), list_frames(train / "pha" / folder.name)
                clips.append(CompositeClip(f"{folder.name}+{label}", *frames, background))
        return tuple(clips)


def _find_backgrounds(folder: Path) -> list[tuple[str, tuple[Path, ...]]]:
    clips = [(inner.name, list_frames(inner)) for inner in list_folders(folder)]
    if not clips and has_images(folder):
        clips = [(path.stem, (path,)) for path in list_frames(folder)]
    if not clips:
        raise DataError(f"folder {folder} is missing or holds no backgrounds; expected {folder}/<clip>/<frame>")
    return clips
