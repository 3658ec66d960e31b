"""Readers of image sequences and cameras, and the choice among all readers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.errors import DataError
from ptq4vm.media.frames import Frame, Reader, Sound, StreamInfo
from ptq4vm.media.images import IMAGE_SUFFIXES, list_frames, open_rgb
from ptq4vm.media.streams import is_source
from ptq4vm.media.video import VideoReader


class ImagesReader(Reader):
    """The images of a folder in natural order, or one image; upright, as their EXIF data says.

    Args:
        path: Folder or image file.
        rate: Frames per second, where a video is made of them.

    Raises:
        DataError: There is no image, or the first is damaged.
    """

    def __init__(self, path: Path, rate: Fraction = Fraction(30)) -> None:
        self._paths = list_frames(path) if path.is_dir() else (path,)
        self._rate = rate
        size = self._image(self._paths[0]).shape[:2]
        stems = tuple(file.stem for file in self._paths)
        names = stems if len(set(stems)) == len(stems) else tuple(file.name for file in self._paths)
        self.info = StreamInfo((size[0], size[1]), rate, len(self._paths), names=names, files=tuple(self._paths))

    @staticmethod
    def _image(path: Path) -> NDArray[np.uint8]:
        """``(H, W, 3)``, upright. Raises :class:`DataError`."""
        return np.asarray(open_rgb(path)).copy()  # what Pillow gives cannot be written to

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """See :meth:`Reader.read`."""
        for index, path in list(enumerate(self._paths))[start:stop]:
            yield Frame(index, self._image(path), index / self._rate)


class CameraReader(Reader):
    """A camera, until somebody stops it. Frames carry the time at which they came.

    Args:
        number: 0 is the first camera.

    Raises:
        DataError: It is not there, or gives no picture.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._camera = cv2.VideoCapture(number)
        good, first = self._camera.read() if self._camera.isOpened() else (False, None)
        if not good or first is None:
            self._camera.release()
            raise DataError(f"camera {number} gives no picture: connect it, close what uses it, or give a file")
        rate = Fraction(self._camera.get(cv2.CAP_PROP_FPS) or 30).limit_denominator(1001)
        self.info = StreamInfo((first.shape[0], first.shape[1]), rate, tick=Fraction(1, 1000))

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """See :meth:`Reader.read`."""
        began, index = time.monotonic(), 0
        while stop is None or index < stop:
            good, image = self._camera.read()
            if not good:
                raise DataError(f"camera {self._number} stopped after {index} frames: connect it again")
            moment = Fraction(round((time.monotonic() - began) * 1000), 1000)
            yield Frame(index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), moment)
            index += 1

    def close(self) -> None:
        """Switch the camera off."""
        self._camera.release()


class PacedReader(Reader):
    """Another reader's frames at the speed at which they are to be played, as a camera would give them.

    Args:
        reader: The other one.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.info, self.audio = reader.info, reader.audio

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame | Sound]:
        """See :meth:`Reader.read`."""
        began: float | None = None
        for item in self._reader.read(start, stop):
            if isinstance(item, Frame):
                now = time.monotonic()
                began = now - float(item.time) if began is None else began
                time.sleep(max(0.0, began + float(item.time) - now))
            yield item

    def close(self) -> None:
        """See :meth:`Reader.close`."""
        self._reader.close()


def open_input(text: str, rate: Fraction = Fraction(30), deep: bool = False) -> Reader:
    """A reader for a path, or for a camera where ``text`` is a number and no such file exists.

    Args:
        text: Video file, image file, folder of images, a camera's number, ``-`` for the standard input, or an address.
        rate: Frames per second of images.
        deep: Whether frames of videos shall bring all their bits, where there are more than 8.

    Raises:
        ConfigError: It is an address of a kind that is not known.
        DataError: It is none of these, or holds no frame.
    """
    if is_source(text):
        return VideoReader(text, deep)
    path = Path(text)
    if text.isdigit() and not path.exists():
        return CameraReader(int(text))
    if not path.exists():
        raise DataError(f"{path} does not exist: give a video, an image, a folder of images, or a camera's number")
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return ImagesReader(path, rate)
    return VideoReader(path, deep)
