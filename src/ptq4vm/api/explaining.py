"""Which operations of an exported file run with integers on this CPU, and what each costs. PyTorch is imported where
frames of a clip are asked for and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.explaining import Explanation, frame_size
from ptq4vm.engines.explaining import explain as measure
from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_size, check_threads
from ptq4vm.media.portrait import draw_portrait
from ptq4vm.report.explanation import write_explanation

DEFAULT = (288, 512)
"""``(H, W)`` for a file that takes any size."""


def explain(
    file: str | Path,
    *,
    frames: int = 24,
    warm_up: int = 5,
    clip: str | Path | None = None,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    engine: str = "auto",
    out: str | Path | None = None,
) -> Explanation:
    """Tell which operations of an exported file run with integers on this CPU, which do not and why, what each costs.

    Args:
        file: The exported ``.onnx``, ``.xml``, ``.tflite`` or ``.bits``.
        frames: How many are timed; of a shorter clip, all.
        warm_up: How many are matted before.
        clip: A folder with ``com/`` and ``pha/``, brought to the file's size; a drawn portrait by default.
        size: ``(H, W)`` of the frames, for a file that takes any; 288 x 512 by default.
        threads: CPU threads of the engine, as many as it likes by default.
        engine: A name of :data:`ptq4vm.engines.registry.ENGINES`, or ``auto``: the usual one for the file.
        out: A folder for ``explain.json`` and ``explain.md``.

    Returns:
        The operations with their times, types and reasons, in ``costs``.

    Raises:
        ConfigError: A value is unknown or out of range, the file is of no known kind, or its engine does not tell.
        DataError: The clip cannot be read.
        ExportError: The file is missing, damaged or not one of ours.
        SaveError: ``out`` cannot be written.
    """
    path = Path(file)
    check_threads(threads)
    if frames < 1:
        raise ConfigError(f"frames={frames} is none: use 1 or more")
    if warm_up < 0:
        raise ConfigError(f"warm_up={warm_up}: use 0 or more")
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"out={out} is a file, and a folder is needed: choose another out")
    pictures = _pictures(clip, _size(path, engine, size), frames)
    found = measure(path, pictures, threads, warm_up, engine)
    if out is not None:
        write_explanation(Path(out), found)
    return found


def _size(file: Path, engine: str, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """The file's size, or what is wanted of one that takes any. Raises :class:`ConfigError` where they differ."""
    own = frame_size(file, engine)
    if wanted is not None:
        check_size("size", wanted)
    if own is not None and wanted not in (None, own):
        raise ConfigError(f"{file} takes frames of {own[1]}x{own[0]}: leave size out")
    return own or wanted or DEFAULT


def _pictures(clip: str | Path | None, size: tuple[int, int], frames: int) -> Sequence[NDArray[np.uint8]]:
    """Frames of a clip, or of a drawn one."""
    if clip is None:
        return list(draw_portrait(size, frames)[0])
    from ptq4vm.data.clips.sources import FolderClip
    from ptq4vm.engines.benchmark import images
    from ptq4vm.ops.clips import fitted

    source = FolderClip.from_folder(Path(clip))
    return images(fitted(source.read(0, min(frames, source.num_frames)), size))
