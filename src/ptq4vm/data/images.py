"""Listing and decoding image files, with errors that name the file.

Pillow decodes: it opens any file name that the system can, and refuses a truncated file, which OpenCV fills with grey.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ptq4vm.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that orders numbers by value: ``frame2`` before ``frame10``."""
    parts = re.split(r"([0-9]+)", name)
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


def list_frames(folder: Path) -> tuple[Path, ...]:
    """Image files of ``folder`` in natural order.

    Raises:
        DataError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist; expected one image file per frame in it")
    found = [folder / name for name in sorted((entry.name for entry in _images(folder)), key=natural_key)]
    if not found:
        raise DataError(f"folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); add the clip's frames")
    return tuple(found)


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


def read_rgb_cover(path: Path, size: tuple[int, int]) -> Tensor:
    """Like :func:`read_rgb`, scaled to cover ``size`` = ``(H, W)`` and cropped around the centre when it differs."""
    return cover(open_rgb(path), size)


def cover(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """An image as ``(3, H, W)`` uint8 RGB, scaled to cover ``size`` = ``(H, W)`` and cropped when it differs."""
    image = image.convert("RGB")
    if (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.LANCZOS)
    return _to_tensor(image)


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
    return image.getchannel(0)


def open_rgb(path: Path) -> Image.Image:
    """Decode to a picture of mode ``RGB``. Raises :class:`DataError`."""
    return _eight_bits(_decode(path)).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray brought to 8 bits, which Pillow itself would cut off; other pictures as they are."""
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image, dtype=np.float64)
    return Image.fromarray(np.clip(np.rint(wide / 257.0), 0, 255).astype(np.uint8))


def _is_image(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".") and not entry.is_dir()


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
        return image.copy()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_tensor(image: Image.Image) -> Tensor:
    pixels = np.array(image, dtype=np.uint8)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))
