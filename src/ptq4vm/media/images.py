"""Listing and decoding image files, with errors that name the file.

Pillow decodes: it opens any file name that the system can, and refuses a truncated file, which OpenCV fills with grey.
Every picture comes upright, as its EXIF orientation says, and in sRGB, whatever colour profile it brings.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError

from ptq4vm.errors import DataError
from ptq4vm.media.profiles import to_srgb

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
"""What is decoded, whatever a file is called: for other formats Pillow may run other programs (PostScript)."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright by its EXIF orientation; from 5 on, rows become columns."""

_SUFFIXES = tuple(IMAGE_SUFFIXES)
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks, and what stands for bytes that are no UTF-8."""
_NUMBERS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class FrameFiles(Sequence[Path]):
    """Files of one folder. Only names are kept, and equal names once: a data set has a million files.

    Attributes:
        folder: Folder that holds the files.
        names: Names of the files with suffix, in order.
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
    """Visible subfolders (or links to folders) in natural order; empty when ``folder`` does not exist.

    Raises:
        DataError: A name cannot be written down: see :func:`check_name`.
    """
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for path in found:
        check_name(path)
    return sorted(found, key=lambda path: natural_key(path.name))


def check_name(path: Path) -> None:
    """Refuse a clip whose name tables and files cannot hold. Raises :class:`DataError`."""
    if _UNWRITABLE.search(path.name):
        shown = ascii(path.name)[1:-1]
        raise DataError(f"folder {shown} in {path.parent} has a name with line breaks or not in UTF-8: rename it")


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
    """``(H, W)`` of the upright picture, from the file's header. Raises :class:`DataError`."""
    with _open(path) as image:
        return _upright_size(image)


def orientation(path: Path) -> int:
    """EXIF orientation of a file, 1 (upright) to 8, from its header. Raises :class:`DataError`."""
    with _open(path) as image:
        return _orientation(image)


class ImageHeader(NamedTuple):
    """What a file says of itself before it is decoded.

    Attributes:
        size: ``(H, W)`` of the upright picture, pixels.
        channels: 1 for grey, 2 with transparency, 3 or 4 in colour.
        bits: How many bits a channel has.
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
        size, kind = _upright_size(image), image.format
        bits = {"I": 16, "F": 32}.get(image.mode[0], 8)
    with path.open("rb") as file:
        start = file.read(25)
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 64))
        end = file.read()
    if kind == "PNG":  # Pillow reads colour of 16 bits as 8
        return ImageHeader(size, channels, max(start[24], 8), b"IEND" in end)
    return ImageHeader(size, channels, bits, kind != "JPEG" or b"\xff\xd9" in end)


def open_image(path: Path) -> Image.Image:
    """Open a picture without decoding it, for ``with``. Raises :class:`DataError`."""
    return _open(path)


def open_alpha(path: Path) -> Image.Image:
    """Decode to a picture of mode ``L``; 16-bit files, and floats in [0, 1], are scaled to 8 bits.

    Where a file has transparency, that is the matte, unless it is opaque everywhere and its colours are grey; others
    give their first channel.

    Raises:
        DataError: The file is unreadable or truncated.
    """
    image = _eight_bits(_decode(path), path)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("1", "CMYK"):
        image = image.convert("RGB")
    if image.mode in ("LA", "RGBA") and (image.getchannel("A").getextrema() != (255, 255) or not _is_grey(image)):
        return image.getchannel("A")
    return image if image.mode == "L" else image.getchannel(0)


def _is_grey(image: Image.Image) -> bool:
    first, *others = (image.getchannel(band) for band in image.getbands()[:-1])
    return all(ImageChops.difference(first, other).getbbox() is None for other in others)


def open_rgb(path: Path) -> Image.Image:
    """Decode to a picture of mode ``RGB``, sRGB where it has a colour profile. Raises :class:`DataError`."""
    image = _decode(path)
    profile = image.info.get("icc_profile")
    return as_rgb(to_srgb(_eight_bits(image, path), profile) if profile else _eight_bits(image, path))


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to mode ``RGB``."""
    return image if image.mode == "RGB" else image.convert("RGB")  # which would make a copy


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """Grey of 16 bits, or of floats in [0, 1], brought to 8 bits, which Pillow would cut off; others as they are.

    Raises:
        DataError: There is a float that is no number.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    wide = np.asarray(image, dtype=np.float64)
    if not np.isfinite(wide).all():
        raise DataError(f"image {path} has values that are not finite: write it anew")
    scaled = wide * 255.0 if image.mode == "F" else wide / 257.0
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


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
        image = Image.open(path, formats=FORMATS)
        pictures = getattr(image, "n_frames", 1)
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist (a broken link?); restore it") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be read ({one_line(error)}); replace it") from error
    if pictures > 1 and image.format != "MPO":  # of which the others are a camera's previews
        image.close()
        raise DataError(f"image {path} holds {pictures} pictures: save each as a file of its own, or as a video")
    return image


def _decode(path: Path) -> Image.Image:
    with _open(path) as image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three for damaged files
            raise DataError(f"image {path} is damaged or truncated ({one_line(error)}); replace it") from error
        turn = _TURNS.get(_orientation(image))
        return image if turn is None else image.transpose(turn)  # decoded; leaving the block closes the file only


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where the file tells none, or nothing that can be understood. Pillow itself turns what TIFF holds."""
    if image.format == "TIFF":
        return 1
    try:
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # that of PNG would decode the picture
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, struct.error):  # what Pillow raises for damage
        return 1
    return found if found in _TURNS else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    height, width = image.height, image.width
    return (width, height) if _orientation(image) >= 5 else (height, width)


def one_line(error: BaseException) -> str:
    """What a decoder says is wrong, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
