"""Backgrounds as data sets of their own: to be checked, and for other data sets to put people before."""

from __future__ import annotations

from pathlib import Path

from ptq4vm.data.base import DATASETS, ClipSets
from ptq4vm.data.clips.backgrounds import BackgroundClip, BackgroundFolder
from ptq4vm.errors import DataError


@DATASETS.register("backgrounds")
class BackgroundsDataset:
    """Backgrounds of a folder, to be given to :class:`VideoMatteDataset` and :class:`StillsDataset` as ``backgrounds``.

    Args:
        root: The folder: ``[train|test/]<clip>/<frame>`` or video files, or images.
        kind: ``video``, ``image`` or ``any``; see :class:`ptq4vm.data.clips.backgrounds.BackgroundFolder`.

    Raises:
        ConfigError: The kind is unknown.
    """

    def __init__(self, root: str | Path, kind: str = "any") -> None:
        self.folder = BackgroundFolder(Path(root).expanduser(), kind)

    def __str__(self) -> str:
        return str(self.folder)

    def backgrounds(self, split: str = "train") -> tuple[BackgroundClip, ...]:
        """List the backgrounds of a split. Raises :class:`DataError` when there are none."""
        return self.folder.backgrounds(split)

    def clips(self) -> ClipSets:
        """Give no clips, neither to calibrate on nor to evaluate: nobody is in a background.

        Raises:
            DataError: Always.
        """
        raise DataError(
            f"{self.folder.root} holds backgrounds, which show nobody: give the folder as data.backgrounds= of another "
            "data set, such as videomatte240k"
        )
