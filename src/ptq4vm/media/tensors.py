"""Image files and pictures as tensors, alone and in stacks; :mod:`ptq4vm.media.images` decodes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.media.images import as_rgb, open_alpha, open_rgb

Box = tuple[int, int, int, int]
"""A part of a picture, pixels: left, top, right (the column after the last), bottom (the row after the last)."""


def read_rgb(path: Path) -> Tensor:
    """Decode to ``(3, H, W)`` uint8 RGB. Raises :class:`DataError` for an unreadable or truncated file."""
    return _to_tensor(open_rgb(path))


def read_stack(paths: Sequence[Path], channels: int, size: tuple[int, int], box: Box | None = None) -> Tensor:
    """Decode files of one size into one tensor, without a copy of each.

    Args:
        paths: Image files in the order of the stack.
        channels: 3 as :func:`read_rgb` does, 1 as :func:`read_alpha` does.
        size: ``(H, W)`` that all of them have, pixels.
        box: The part to keep, ``(left, top, right, bottom)`` in pixels; all if not given.

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
    return torch.from_numpy(stack)


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
    return torch.from_numpy(stack)


def cover(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Tensor:
    """Turn an image into ``(3, H, W)`` uint8 RGB, scaled to cover ``size`` = ``(H, W)`` and cropped when it differs.

    Of that, ``box`` is given where there is one.
    """
    return _to_tensor(_covering(image, size, box))


def _covering(image: Image.Image, size: tuple[int, int], box: Box | None) -> Image.Image:
    image = as_rgb(image)
    if (image.height, image.width) != size:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.LANCZOS)
    return image.crop(box) if box and box != (0, 0, size[1], size[0]) else image


def read_alpha(path: Path) -> Tensor:
    """Decode to ``(1, H, W)`` uint8. Colour files give their first channel; 16-bit files are scaled to 8 bit.

    Raises:
        DataError: The file is unreadable or truncated.
    """
    return _to_tensor(open_alpha(path))


def _to_tensor(image: Image.Image) -> Tensor:
    """``(C, H, W)`` uint8 of a picture of mode L or RGB."""
    planes = np.empty((1 if image.mode == "L" else 3, image.height, image.width), np.uint8)
    _fill(planes, image)
    return torch.from_numpy(planes)


def _fill(planes: NDArray[np.uint8], image: Image.Image) -> None:
    if image.mode == "L":
        planes[0] = np.asarray(image)
    else:
        cv2.split(np.asarray(image), list(planes))  # in place, and six times as fast as a transposed copy
