"""What a run leaves for people and other tools beside the network itself."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ptq4vm.errors import CheckpointError, ConfigError, SaveError
from ptq4vm.io import parse_json, remedy, remove_leftovers, write_json
from ptq4vm.quant.names import CHOICES, TENSORS

log = logging.getLogger(__name__)

RUNNING, FINISHED, FAILED = "running", "finished", "failed"

METRICS, TIMING, SHEETS, LOGS, STATE = "metrics.json", "timing.json", "sheets", "logs", "state"
RUN, LAYERS, FRAMES = "run.json", "layers.json", "frames.csv"
NOTES, LOCK = "progress.json", ".lock"
"""What a run has done, in its folder ``state``: the mark of a run folder; and what keeps other processes out."""
_LONGEST = 200
_WRITTEN = (TENSORS, CHOICES, METRICS, TIMING, LAYERS, RUN, SHEETS, STATE)
"""What a run writes besides logs."""


def folder_name(text: str) -> str:
    """A name for one folder from any text, as the values of a sweep's job are: no way out of the folder it is in.

    What had to be changed (separators, control characters, more than 200 bytes) ends in a part of the text's SHA-256,
    so that different texts have different names.
    """
    name = re.sub(r"[/\\\x00-\x1f\x7f]", "_", text)
    while len(name.encode()) > _LONGEST:
        name = name[: len(name) - 1 - (len(name.encode()) - _LONGEST) // 4]
    if name.strip(". ") == "":
        name = "_"
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def describe_run(run_dir: Path, values: Mapping[str, Any]) -> None:
    """Add values to ``run.json``, which tells what a run is, how it was called and how it ended.

    Raises:
        SaveError: It cannot be written.
    """
    write_json(run_dir / RUN, {**_described(run_dir), **values})


def is_finished(run_dir: Path) -> bool:
    """Whether ``run.json`` says that a run ended well."""
    return _described(run_dir).get("status") == FINISHED


def _described(run_dir: Path) -> dict[str, Any]:
    try:
        found = parse_json((run_dir / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is written anew
        return {}
    return found if isinstance(found, dict) else {}


def is_run_folder(run_dir: Path) -> bool:
    """Whether a folder holds a run of ours, begun at least: what is in it is then ours to replace."""
    return (run_dir / STATE / NOTES).is_file() or str(_described(run_dir).get("command", "")).startswith("ptq4vm ")


def check_run_folder(run_dir: Path) -> None:
    """Refuse a folder in which a run would replace files that are not of a run.

    Raises:
        ConfigError: It holds such files.
    """
    foreign = [] if is_run_folder(run_dir) else [name for name in _WRITTEN if (run_dir / name).exists()]
    if foreign:
        raise ConfigError(f"{run_dir} holds {foreign[0]}, which is not of a run: choose another run_dir")


def check_evaluation_folder(run_dir: Path) -> None:
    """Refuse a folder in which an evaluation would replace a run's figures, or files that are not ours.

    Raises:
        ConfigError: It holds a run, or such files.
    """
    if is_run_folder(run_dir):
        raise ConfigError(f"{run_dir} holds a run, whose {METRICS} would be replaced: choose another run_dir")
    for name, mark in ((METRICS, '"stages"'), (FRAMES, "stage,clip,frame")):
        if (run_dir / name).exists() and mark not in _text(run_dir / name):
            raise ConfigError(f"{run_dir} holds {name}, which is not of an evaluation: choose another run_dir")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def occupied(run_dir: Path) -> Iterator[None]:
    """Keep other processes out of a run folder while the block runs; a process that is killed frees it.

    Processes that a launcher has started for the same run (distributed training) are let in.

    Raises:
        CheckpointError: Another process is in it.
        SaveError: The folder cannot be written.
    """
    if int(os.environ.get("LOCAL_RANK") or 0) > 0:
        yield
        return
    path = run_dir / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0, is_singleton=True)  # the same process may come in again
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"{run_dir} is in use by another process ({_text(path).strip() or 'which has just begun'}): "
            "wait for it, or choose another run_dir"
        ) from error
    except OSError as error:
        raise SaveError(f"cannot write {run_dir}: {error}; {remedy(error, 'choose another run_dir')}") from error
    for folder in (run_dir, run_dir / STATE, *(run_dir / STATE).glob("*/"), run_dir / SHEETS):
        remove_leftovers(folder)
    try:
        path.write_text(f"pid {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def taken(run_dir: Path, overwrite: bool) -> Iterator[None]:
    """Around a run: its folder is checked, kept for this process, and emptied of an earlier run where that is asked.

    Args:
        run_dir: The run folder.
        overwrite: Whether to remove an earlier run first.

    Raises:
        ConfigError: It holds files that a run would replace and that are not of a run.
        CheckpointError: Another process is in it.
        SaveError: It cannot be written, or cleared.
    """
    check_run_folder(run_dir)
    with occupied(run_dir):
        if overwrite:
            clear_run_folder(run_dir)
        yield


def clear_run_folder(run_dir: Path) -> None:
    """Remove what an earlier run left, and nothing else; a folder without a run stays as it is.

    Raises:
        SaveError: Something cannot be removed.
    """
    if not is_run_folder(run_dir):
        return
    try:
        for name in (TENSORS, CHOICES, METRICS, TIMING, LAYERS, RUN):
            (run_dir / name).unlink(missing_ok=True)
        for name in (SHEETS, LOGS, STATE):  # the state last: while it is there, this can be done again
            shutil.rmtree(run_dir / name, ignore_errors=False) if (run_dir / name).exists() else None
    except OSError as error:
        raise SaveError(f"cannot clear {run_dir}: {error}; choose another run_dir") from error
