"""Clips in the layout of RVM's evaluation sets: ``root/[subset/]<clip>/{com,pha[,fgr]}/<frame>.png|jpg``."""

from __future__ import annotations

from pathlib import Path

from ptq4vm.data.base import DATASETS, ClipSets
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.errors import DataError
from ptq4vm.media.images import list_folders


@DATASETS.register("folder")
class FolderDataset:
    """Clips under a folder, all of them evaluated.

    Args:
        root: Folder of the clips to evaluate.
        calibration_root: Folder of the clips to calibrate on, in the same layout. Without it the evaluated clips serve,
            which makes every figure too good; the pipeline warns of that.
    """

    def __init__(self, root: str | Path, calibration_root: str | Path | None = None) -> None:
        self.root = Path(root).expanduser()
        self.calibration_root = None if calibration_root is None else Path(calibration_root).expanduser()

    def clips(self) -> ClipSets:
        """List the clips. Raises :class:`DataError` for a missing or empty folder, or lists that do not match."""
        evaluation = find_clips(self.root)
        if self.calibration_root is not None:
            return ClipSets(find_clips(self.calibration_root), evaluation)
        return ClipSets(evaluation, evaluation)


def find_clips(root: Path) -> tuple[FolderClip, ...]:
    """List clips one or two levels below ``root``, in natural order of their names.

    Raises:
        DataError: ``root`` is missing or holds no clip, or a clip lacks ``com`` or ``pha`` or their counts differ.
    """
    if not root.is_dir():
        raise DataError(f"folder {root} does not exist; set data.root to a folder of clips")
    found: list[FolderClip] = []
    for folder in list_folders(root):
        if _is_clip(folder):
            found.append(FolderClip.from_folder(folder))
            continue
        found += [
            FolderClip.from_folder(inner, f"{folder.name}/{inner.name}")
            for inner in list_folders(folder)
            if _is_clip(inner)
        ]
    if not found:
        raise DataError(f"folder {root} holds no clips; expected {root}/[subset/]<clip>/com and .../pha with frames")
    return tuple(found)


def _is_clip(folder: Path) -> bool:
    return (folder / "com").is_dir() or (folder / "pha").is_dir()
