"""Listing and decoding image files, with errors that name the file.

Pillow decodes: it opens any file name that the system can, and refuses a truncated file, which OpenCV fills with grey.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ptq4vm.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


Box = tuple[int, int, int, int]
"""A part of a picture, pixels: left, top, right (the column after the last), bottom (the row after the last)."""

_SUFFIXES = tuple(IMAGE_SUFFIXES)
_NUMBERS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class FrameFiles(Sequence[Path]):
    """Files of one folder. Only names are kept, and equal names once: a data set has a million files.

    Attributes:
        folder: Where they are.
        names: Of the files, in order.
    """

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> FrameFiles: ...

    def __getitem__(self, index: int | slice) -> Path | FrameFiles:
        if isinstance(index, slice):
            return FrameFiles(self.folder, self.names[index])
        return self.folder / self.names[index]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that orders numbers by value: ``frame2`` before ``frame10``."""
    parts = _NUMBERS.split(name)
    return tuple((1, int(part), part) if part.isdigit() and part.isascii() else (0, 0, part) for part in parts)


def list_folders(folder: Path) -> list[Path]:
    """Visible subfolders (or links to folders) in natural order; empty when ``folder`` does not exist."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: natural_key(path.name))


def has_images(folder: Path) -> bool:
    """Whether ``folder`` itself holds at least one image file."""
    return folder.is_dir() and next(_images(folder), None) is not None


def list_frames(folder: Path) -> FrameFiles:
    """Image files of ``folder`` in natural order.

    The folder is read once and no file is looked at, be it a link or not: one that cannot be read says so when it is.

    Raises:
        DataError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist; expected one image file per frame in it")
    names = _in_order([sys.intern(entry.name) for entry in _images(folder)])
    if not names:
        raise DataError(f"folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); add the clip's frames")
    return FrameFiles(folder, names)


def _in_order(names: list[str]) -> tuple[str, ...]:
    """By :func:`natural_key`, which is the order of the alphabet where all are numbers of equally many digits."""
    plain = len({len(name) for name in names}) == 1 and all(_is_number(name.rpartition(".")[0]) for name in names)
    return tuple(sorted(names, key=None if plain else natural_key))


def _is_number(name: str) -> bool:
    return name.isdigit() and name.isascii()


def image_size(path: Path) -> tuple[int, int]:
    """``(H, W)`` from the file's header. Raises :class:`DataError`."""
    with _open(path) as image:
        return image.height, image.width


class ImageHeader(NamedTuple):
    """What a file says of itself before it is decoded.

    Attributes:
        size: ``(H, W)``.
        channels: 1 for grey, 2 with transparency, 3 or 4 in colour.
        bits: Of a channel.
        complete: Whether the file ends as its format does (looked at for PNG and JPEG only).
    """

    size: tuple[int, int]
    channels: int
    bits: int
    complete: bool


def image_header(path: Path) -> ImageHeader:
    """Look at the header and the end of a file. Raises :class:`DataError` where it is no image."""
    with _open(path) as image:
        channels = 3 if image.mode == "P" else len(image.getbands())
        size, kind = (image.height, image.width), image.format
        bits = 16 if image.mode.startswith("I") else 8
    with path.open("rb") as file:
        start = file.read(25)
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 64))
        end = file.read()
    if kind == "PNG":  # Pillow reads colour of 16 bits as 8
        return ImageHeader(size, channels, max(start[24], 8), b"IEND" in end)
    return ImageHeader(size, channels, bits, kind != "JPEG" or b"\xff\xd9" in end)


def read_rgb(path: Path) -> Tensor:
    """Decode to ``(3, H, W)`` uint8 RGB. Raises :class:`DataError` for an unreadable or truncated file."""
    return _to_tensor(open_rgb(path))


def read_stack(paths: Sequence[Path], channels: int, size: tuple[int, int], box: Box | None = None) -> Tensor:
    """Decode files of one size into one tensor, without a copy of each.

    Args:
        paths: The files.
        channels: 3 as :func:`read_rgb` does, 1 as :func:`read_alpha` does.
        size: ``(H, W)`` of all.
        box: The part to keep; all if not given.

    Returns:
        ``(N, channels, h, w)`` uint8.

    Raises:
        DataError: A file is unreadable or truncated, or of another size.
    """
    whole = (0, 0, size[1], size[0])
    left, top, right, bottom = box or whole
    stack = np.empty((len(paths), channels, bottom - top, right - left), np.uint8)
    for path, planes in zip(paths, stack, strict=True):
        image = open_rgb(path) if channels == 3 else open_alpha(path)
        if (image.height, image.width) != size:
            raise DataError(
                f"image {path} is {image.width}x{image.height} but its clip is {size[1]}x{size[0]}; "
                "bring all images of the clip to one size"
            )
        _fill(planes, image.crop(box) if box and box != whole else image)
    return _tensor(stack)


def read_cover_stack(paths: Sequence[Path], size: tuple[int, int], box: Box | None = None) -> Tensor:
    """Like :func:`read_stack` in colour, for files of any size, brought to ``size`` as :func:`cover` does.

    A file that comes more than once is decoded once.
    """
    left, top, right, bottom = box or (0, 0, size[1], size[0])
    stack = np.empty((len(paths), 3, bottom - top, right - left), np.uint8)
    seen: dict[Path, int] = {}
    for index, path in enumerate(paths):
        if seen.setdefault(path, index) < index:
            stack[index] = stack[seen[path]]
        else:
            _fill(stack[index], _covering(open_rgb(path), size, box))
    return _tensor(stack)


def cover(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Tensor:
    """An image as ``(3, H, W)`` uint8 RGB, scaled to cover ``size`` = ``(H, W)`` and cropped when it differs.

    Of that, ``box`` is given where there is one.
    """
    return _to_tensor(_covering(image, size, box))


def _covering(image: Image.Image, size: tuple[int, int], box: Box | None) -> Image.Image:
    image = _as_rgb(image)
    if (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.LANCZOS)
    return image.crop(box) if box and box != (0, 0, size[1], size[0]) else image


def read_alpha(path: Path) -> Tensor:
    """Decode to ``(1, H, W)`` uint8. Colour files give their first channel; 16-bit files are scaled to 8 bit.

    Raises:
        DataError: The file is unreadable or truncated.
    """
    return _to_tensor(open_alpha(path))


def open_alpha(path: Path) -> Image.Image:
    """Decode what :func:`read_alpha` reads to a picture of mode ``L``. Raises :class:`DataError`."""
    image = _eight_bits(_decode(path))
    if image.mode in ("1", "P"):
        image = image.convert("RGB")
    return image if image.mode == "L" else image.getchannel(0)


def open_rgb(path: Path) -> Image.Image:
    """Decode to a picture of mode ``RGB``. Raises :class:`DataError`."""
    return _as_rgb(_eight_bits(_decode(path)))


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # which would make a copy


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray brought to 8 bits, which Pillow itself would cut off; other pictures as they are."""
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image, dtype=np.float64)
    return Image.fromarray(np.clip(np.rint(wide / 257.0), 0, 255).astype(np.uint8))


def _is_image(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    if name.startswith(".") or not name.lower().endswith(_SUFFIXES):
        return False
    return not entry.is_dir(follow_symlinks=False)  # known from the folder, without asking about the file


def _images(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:  # says what is a folder without asking the disk about each file
        yield from filter(_is_image, entries)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist (a broken link?); restore it") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be read ({_line(error)}); replace it") from error


def _decode(path: Path) -> Image.Image:
    with _open(path) as image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three for damaged files
            raise DataError(f"image {path} is damaged or truncated ({_line(error)}); replace it") from error
        return image  # decoded; leaving the block closes the file only


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_tensor(image: Image.Image) -> Tensor:
    """``(C, H, W)`` uint8 of a picture of mode L or RGB."""
    planes = np.empty((1 if image.mode == "L" else 3, image.height, image.width), np.uint8)
    _fill(planes, image)
    return _tensor(planes)


def _tensor(values: NDArray[np.uint8]) -> Tensor:
    """The same memory as a tensor."""
    import torch  # late: matting with an exported file has no use for it

    return torch.from_numpy(values)


def _fill(planes: NDArray[np.uint8], image: Image.Image) -> None:
    if image.mode == "L":
        planes[0] = np.asarray(image)
    else:
        cv2.split(np.asarray(image), list(planes))  # in place, and six times as fast as a transposed copy
