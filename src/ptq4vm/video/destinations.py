"""Where mattes go: a video, an image, or a folder of images that can be gone on with; checked before work begins."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.io import remove_leftovers, write_json
from ptq4vm.media.codecs import VIDEO_SUFFIXES, choose_codec
from ptq4vm.media.frames import Reader
from ptq4vm.media.images import IMAGE_SUFFIXES
from ptq4vm.media.streams import StreamTarget, open_stream
from ptq4vm.media.writers import ImagesWriter, Writer, open_video
from ptq4vm.video.loop import Outcome

log = logging.getLogger(__name__)

WARM_UP = 30
"""Frames before the first missing one that the network sees again, to remember what it remembered."""
NOTE = ".matte.json"

Run = Callable[[Writer, int], Outcome]
"""Mattes into a writer from a frame's index on."""


class Destination(ABC):
    """Something to write mattes to, whose name has been checked."""

    @abstractmethod
    def fill(self, reader: Reader, size: tuple[int, int], run: Run) -> Outcome:
        """Have ``run`` write pictures of ``size`` = ``(H, W)``.

        Raises:
            PTQ4VMError: Nothing was written, or it cannot be written. An error after the first picture is in the
                outcome instead: what came before it is kept.
        """


class VideoDestination(Destination):
    """A video file; it appears, or is replaced, when it is done.

    Args:
        path: The file, whose name ends in one of :data:`VIDEO_SUFFIXES`.
        codec: A key of :data:`ptq4vm.media.codecs.CODECS`, or ``auto``.
        alpha: Whether pictures are RGBA.
        overwrite: Whether an existing file may be replaced.
        speed: A key of the codec's speeds, or ``auto``.

    Raises:
        ConfigError: The file exists, or the codec does not suit it.
        SaveError: The folder cannot be written.
    """

    def __init__(self, path: Path, codec: str, alpha: bool, overwrite: bool, speed: str = "auto") -> None:
        self._codec = choose_codec(path.suffix.lower(), codec, alpha, speed)
        _check_absent(path, overwrite)
        check_writable(path.parent)
        self._path, self._alpha = path, alpha

    def fill(self, reader: Reader, size: tuple[int, int], run: Run) -> Outcome:
        """See :meth:`Destination.fill`."""
        with open_video(self._path, reader.info, size, self._codec, self._alpha, reader.audio) as writer:
            return _unless_empty(run(writer, 0))


class StreamDestination(Destination):
    """A pipe, a stream on the network or a virtual camera.

    Args:
        target: From :func:`ptq4vm.media.streams.choose_stream`.
        alpha: Whether pictures are RGBA.
    """

    def __init__(self, target: StreamTarget, alpha: bool) -> None:
        self._target, self._alpha = target, alpha

    def fill(self, reader: Reader, size: tuple[int, int], run: Run) -> Outcome:
        """See :meth:`Destination.fill`."""
        with open_stream(self._target, reader.info, size, self._alpha, reader.audio) as writer:
            return _unless_empty(run(writer, 0))


class ImageDestination(Destination):
    """A single image file. Arguments and errors are those of :class:`VideoDestination`."""

    def __init__(self, path: Path, alpha: bool, overwrite: bool) -> None:
        if alpha and path.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
            raise ConfigError(f"output=rgba does not fit into {path.suffix}: use .png")
        _check_absent(path, overwrite)
        check_writable(path.parent)
        self._path = path

    def fill(self, reader: Reader, size: tuple[int, int], run: Run) -> Outcome:
        """See :meth:`Destination.fill`."""
        return _unless_empty(run(ImagesWriter(lambda index: self._path), 0))


class FolderDestination(Destination):
    """A folder with a PNG for each frame: named as the frames are where they are files, numbered otherwise.

    The same command on the same folder goes on where an earlier one was interrupted. The network sees the last
    :data:`WARM_UP` frames again, so that its memory is all but the same.

    Args:
        path: Folder that is written into.
        names: Names of the frames without suffix; empty where they are to be numbered.
        identity: Everything that decides the pictures; written down in the folder.
        overwrite: Whether to start anew where the folder holds something.
        files: Where the frames are read from, where they are files: what was made of one that has changed since is made
            again, and all after it.

    Raises:
        ConfigError: It holds other files, or the frames of another command.
        SaveError: It cannot be written.
    """

    def __init__(
        self,
        path: Path,
        names: tuple[str, ...],
        identity: Mapping[str, str],
        overwrite: bool,
        files: tuple[Path, ...] = (),
    ) -> None:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file, and a folder of images was asked for: choose another out")
        self._path, self._names, self._identity = path, names, dict(identity)
        self._renew, self._files = overwrite, files
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            self._check_note()
        check_writable(path)

    def _check_note(self) -> None:
        note = self._path / NOTE
        if not note.is_file():
            raise ConfigError(f"{self._path} holds other files: choose another out, or overwrite=true")
        try:
            found = dict(json.loads(note.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"{note} is damaged: choose another out, or overwrite=true") from error
        other = [k for k in sorted({*found, *self._identity}) if found.get(k) != self._identity.get(k)]
        if other:
            raise ConfigError(
                f"{self._path} holds frames made with another {', '.join(other)}: choose another out, or overwrite=true"
            )

    def file(self, index: int) -> Path:
        """Path of the file for the frame ``index``."""
        return self._path / f"{self._names[index] if self._names else f'{index:06d}'}.png"

    def first_missing(self) -> int:
        """Index of the first frame that is not there, or was made of another file than is there now."""
        index = 0
        while (not self._names or index < len(self._names)) and self._is_there(index):
            index += 1
        return index

    def _is_there(self, index: int) -> bool:
        try:
            made = self.file(index).stat().st_mtime_ns
            source = self._files[index].stat() if self._files else None
        except OSError:
            return False
        return source is None or max(source.st_mtime_ns, source.st_ctime_ns) <= made

    def fill(self, reader: Reader, size: tuple[int, int], run: Run) -> Outcome:
        """See :meth:`Destination.fill`."""
        if self._renew and (self._path / NOTE).is_file():
            for old in self._path.iterdir():  # of a run that may have had more frames
                if re.fullmatch(r"\d{6,}\.png", old.name):
                    old.unlink()
        remove_leftovers(self._path, suffix=".png")
        first = 0 if self._renew else self.first_missing()
        write_json(self._path / NOTE, self._identity)
        if first:
            log.warning("%s holds %d frames already: going on from there", self._path, first)
        outcome = run(ImagesWriter(self.file, first), max(0, first - WARM_UP))
        return outcome if first else _unless_empty(outcome)


def choose_destination(
    out: Path,
    reader: Reader,
    *,
    alpha: bool = False,
    codec: str = "auto",
    speed: str = "auto",
    overwrite: bool = False,
    identity: Mapping[str, str] | None = None,
    source: Path | None = None,
) -> Destination:
    """Find out what ``out`` means: a video or an image by its suffix, a folder without one.

    Args:
        out: Path that the user asked for.
        reader: Reader of the source; an image cannot take more than one frame.
        alpha: Whether pictures are RGBA.
        codec: Codec of a video; ``auto`` for images and folders.
        speed: The encoder's preset; ``auto`` for images and folders.
        overwrite: Whether what is there may be replaced.
        identity: See :class:`FolderDestination`.
        source: The source's path, which is never overwritten.

    Raises:
        ConfigError: ``out`` cannot be written as that, exists, or does not suit the source.
        SaveError: It cannot be written.
    """
    suffix = out.suffix.lower()
    if source is not None and out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"out={out} is the input itself: choose another out")
    if not suffix or out.is_dir():
        if codec != "auto":
            raise ConfigError(f"codec={codec} is for videos, and {out} is a folder of PNG files: leave it out")
        if speed != "auto":
            raise ConfigError(f"speed={speed} is for videos, and {out} is a folder of PNG files: leave it out")
        return FolderDestination(out, reader.info.names, identity or {}, overwrite, reader.info.files)
    if suffix in IMAGE_SUFFIXES:
        if reader.info.count != 1:
            raise ConfigError(f"out={out} is one image, and the input has more: give a folder (no suffix) or a video")
        return ImageDestination(out, alpha, overwrite)
    if suffix not in VIDEO_SUFFIXES:
        kinds = f"{', '.join(VIDEO_SUFFIXES)}, an image for an image, or a folder (no suffix)"
        raise ConfigError(f"out={out} is nothing that can be written: use {kinds}")
    return VideoDestination(out, codec, alpha, overwrite, speed)


def check_writable(folder: Path) -> None:
    """Make a folder and a file in it. Raises :class:`SaveError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SaveError(f"folder {folder} cannot be written ({error.strerror or error}): choose another out") from error


def _check_absent(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists: choose another out, or overwrite=true")


def _unless_empty(outcome: Outcome) -> Outcome:
    """The outcome, where there was a picture. Raises its error otherwise."""
    if outcome.seen:
        return outcome
    raise outcome.error or DataError("stopped before the first frame: nothing was written")
