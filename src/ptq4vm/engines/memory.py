"""How much memory an engine needs, measured in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np

from ptq4vm.engines.base import MattingEngine
from ptq4vm.errors import ExportError

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FRAMES = 5


def peak_memory(
    open_engine: Callable[[], MattingEngine], size: tuple[int, int], modules: Sequence[str] = ()
) -> int | None:
    """Bytes by which a process grows at most while it opens an engine and mattes a few frames.

    Args:
        open_engine: Can be pickled.
        size: ``(H, W)`` of the frames.
        modules: Imported before the measurement begins: what they occupy is not counted. Libraries that an engine
            loads by itself when it is opened are.

    Returns:
        Growth of the resident set, or ``None`` where the system (any but Linux) does not tell.

    Raises:
        PTQ4VMError: The engine cannot be opened, or its process was killed.
    """
    if not STATUS.is_file():
        return None
    # spawned, not forked: threads of this process's engines would be missing, and its memory would be there already
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, open_engine, size, tuple(modules)).result()
        except BrokenProcessPool as error:
            raise ExportError(
                f"the process that measured memory at {size[1]}x{size[0]} was killed: use less"
            ) from error


def _measure(open_engine: Callable[[], MattingEngine], size: tuple[int, int], modules: Sequence[str]) -> int:
    """In the other process."""
    for module in modules:
        importlib.import_module(module)
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with suppress(OSError):  # not allowed everywhere: a peak while importing is counted there
        CLEAR.write_text("5")  # the highest so far becomes what there is now
    before = _status("VmRSS")
    engine = open_engine()
    for _ in range(FRAMES):
        engine.matte(frame)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """Bytes of an entry of ``/proc/self/status``."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1]) * 1024
