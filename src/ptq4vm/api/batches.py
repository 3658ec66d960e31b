"""Matting many videos by one call: what is there already is left, and a bad one does not end the others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptq4vm.api.matting import matte
from ptq4vm.errors import ConfigError, PTQ4VMError, one_line
from ptq4vm.media.codecs import CODECS
from ptq4vm.media.images import has_images
from ptq4vm.media.video_file import list_videos

log = logging.getLogger(__name__)


@dataclass
class BatchResult:
    """How matting many videos ended; all are in the order of the inputs.

    Attributes:
        made: Files that were written.
        there: Files that were there already.
        failed: What went wrong, in one line, by the input's path.
        frames: How many frames went through the network.
        seconds: What it took.
        stopped: Whether it was asked to stop before the end.
    """

    made: list[Path] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    frames: int = 0
    seconds: float = 0.0
    stopped: bool = False


def batch_of(text: str) -> tuple[Path, ...]:
    """The videos that ``text`` names: those of a folder that holds no images, or several with commas between.

    Returns:
        Paths in natural order, or as they are written; nothing where ``text`` is a single input.
    """
    path = Path(text)
    if path.is_dir() and not has_images(path):
        return tuple(found.path for found in list_videos(path))
    parts = [part.strip() for part in text.split(",")]
    listed = len(parts) > 1 and not path.exists() and all(Path(part).is_file() for part in parts)
    return tuple(map(Path, parts)) if listed else ()


def matte_all(
    inputs: Sequence[str | Path], out: str | Path, *, stop: threading.Event | None = None, **options: Any
) -> BatchResult:
    """Matte several videos, one after another, each into a file of its name in a folder.

    The same call on the same folder goes on where it was interrupted: a file appears when it is whole.

    Args:
        inputs: Video files with different names.
        out: Folder that gets the films.
        stop: Once it is set, the video at hand is ended and no other begun.
        options: Further arguments of :func:`ptq4vm.matte`, the same for all.

    Raises:
        ConfigError: ``out`` is no folder, or two inputs would make the same file.
    """
    if Path(out).suffix or Path(out).is_file():
        raise ConfigError(f"out={out} is one file, and there are {len(inputs)} inputs: give a folder (no suffix)")
    codec = CODECS.get(options.get("codec", "auto"))
    usual = ".mov" if options.get("output") == "rgba" else ".mp4"
    suffix = usual if codec is None else codec.suffixes[0]
    targets = {Path(each): Path(out) / f"{Path(each).stem}{suffix}" for each in inputs}
    if len(set(targets.values())) < len(inputs):
        raise ConfigError(f"two of the inputs have the same name, and would make one file in {out}: rename one")
    done = BatchResult()
    for source, target in targets.items():
        if stop is not None and stop.is_set():
            done.stopped = True
            break
        if target.exists() and not options.get("overwrite"):
            done.there.append(target)
            continue
        try:
            result = matte(source, target, stop=stop, **options)
        except PTQ4VMError as error:
            done.failed[source] = one_line(error)
            log.warning("%s: %s", source, one_line(error))
            continue
        if result.stopped:  # half a film is not taken for a whole one by the next call
            target.unlink(missing_ok=True)
            done.stopped = True
            break
        done.made.append(target)
        done.frames += result.frames
        done.seconds += result.seconds
    return done
