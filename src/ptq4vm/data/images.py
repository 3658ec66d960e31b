"""Listing and decoding image files, with errors that name the file.

Pillow decodes: it opens any file name that the system can, and refuses a truncated file, which OpenCV fills with grey.
"""

from __future__ import annotations

import re
from pathlib import Path

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
    return folder.is_dir() and any(_is_image(path) for path in folder.iterdir())


def list_frames(folder: Path) -> tuple[Path, ...]:
    """Image files of ``folder`` in natural order.

    Raises:
        DataError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist; expected one image file per frame in it")
    found = sorted((path for path in folder.iterdir() if _is_image(path)), key=lambda path: natural_key(path.name))
    if not found:
        raise DataError(f"folder {folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); add the clip's frames")
    return tuple(found)


def image_size(path: Path) -> tuple[int, int]:
    """``(H, W)`` from the file's header. Raises :class:`DataError`."""
    with _open(path) as image:
        return image.height, image.width


def read_rgb(path: Path) -> Tensor:
    """Decode to ``(3, H, W)`` uint8 RGB. Raises :class:`DataError` for an unreadable or truncated file."""
    return _to_tensor(_decode(path).convert("RGB"))


def read_rgb_cover(path: Path, size: tuple[int, int]) -> Tensor:
    """Like :func:`read_rgb`, scaled to cover ``size`` = ``(H, W)`` and cropped around the centre when it differs."""
    image = _decode(path).convert("RGB")
    if (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.LANCZOS)
    return _to_tensor(image)


def read_alpha(path: Path) -> Tensor:
    """Decode to ``(1, H, W)`` uint8. Colour files give their first channel; 16-bit files are scaled to 8 bit.

    Raises:
        DataError: The file is unreadable or truncated.
    """
    image = _decode(path)
    if image.mode.startswith("I"):
        wide = np.asarray(image, dtype=np.float64)
        return torch.from_numpy(np.clip(np.rint(wide / 257.0), 0, 255).astype(np.uint8))[None]
    if image.mode in ("1", "P"):
        image = image.convert("RGB")
    return _to_tensor(image.getchannel(0))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


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
