"""Pictures in one folder a class, for pre-training of encoders; any ImageFolder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ptq4vm.errors import DataError
from ptq4vm.media.images import list_folders, list_frames, open_rgb
from ptq4vm.media.tensors import cover


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pictures below a folder, whose class is the folder that they are in.

    Args:
        root: Folder of the classes' folders.
        size: Height and width that every picture is brought to, cut at its longer side, pixels.
        hflip: Whether half of the pictures are mirrored, drawn anew every time.

    Raises:
        DataError: There are fewer than two folders with pictures.
    """

    def __init__(self, root: str | Path, size: int, hflip: bool = True) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"{root} is no folder: give one with a folder of pictures for every class")
        folders = [(folder, files) for folder in list_folders(root) if (files := list_frames(folder))]
        if len(folders) < 2:
            raise DataError(f"{root} has {len(folders)} folders with pictures: a class is a folder, and two are needed")
        self.classes = [folder.name for folder, _ in folders]
        self.size, self.hflip = size, hflip
        self._pictures = [(path, number) for number, (_, files) in enumerate(folders) for path in files]

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Picture ``(3, size, size)`` float32 in [0, 1] and its class. Raises :class:`DataError`."""
        path, number = self._pictures[index]
        with open_rgb(path) as image:
            picture = cover(image, (self.size, self.size)).float() / 255
        mirrored = self.hflip and bool(torch.rand(()) < 0.5)
        return (picture.flip(-1) if mirrored else picture), number
