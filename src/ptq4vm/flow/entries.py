"""Files of the flow cache: mapped into memory when read, checked row by row, removed when there are too many."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ptq4vm.io import write_tensors

logger = logging.getLogger(__name__)

FORMAT = "3"  # raise when the meaning of an entry changes

BACKWARD = ("backward", "visible")
FORWARD = ("forward", "visible_forward")
NAMES = (*BACKWARD, *FORWARD)
"""What an entry holds: flow, float16, and where it holds, uint8; a row for each pair of frames."""


def write_entry(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write an entry with its checksums, whole or not at all. Raises :class:`ptq4vm.errors.SaveError`."""
    sums = {name: [_sum(row) for row in tensor] for name, tensor in tensors.items()}
    write_tensors(path, tensors, {"format": FORMAT, "key": path.stem, "checksums": json.dumps(sums)})


def read_entry(path: Path, rows: slice, names: Sequence[str] = NAMES) -> tuple[Tensor, ...] | None:
    """Rows of an entry, as they lie in the file: only their part of it is read, when it is first looked at.

    The file is mapped: what was read stays valid when the entry is removed or replaced meanwhile.

    Args:
        path: File of the entry.
        rows: Which pairs of frames, counted from the entry's first; both ends given.
        names: Names of the tensors to read, of :data:`NAMES`.

    Returns:
        The tensors, or ``None`` where there is no entry, or not the one that was written under that name: it has
        another format or name, it was cut off, or a row that was asked for has changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            sums = _checksums(file.metadata() or {}, path.stem)
            found = tuple(file.get_slice(name)[rows] for name in names)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        if not path.exists():  # evicted after its header was read: torch then maps it by name, a RuntimeError
            return None
        logger.warning("flow entry %s is damaged (%s); computing it again", path, " ".join(str(error).split()))
        return None
    if any([_sum(row) for row in part] != sums.get(name, [])[rows] for name, part in zip(names, found, strict=True)):
        logger.warning("flow entry %s does not hold what it says; computing it again", path)
        return None
    return found


def mark_used(path: Path) -> None:
    """Note that an entry was used now: the entries that were not for longest are evicted first."""
    with contextlib.suppress(OSError):  # removed by another process, or a folder that is read only
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def remove_remains(path: Path) -> None:
    """Remove what a process that was killed while it wrote ``path`` has left; nobody else may be writing it."""
    for left in path.parent.glob(f".{path.stem}-*{path.suffix}"):
        left.unlink(missing_ok=True)


def cache_size(root: Path | str) -> tuple[int, int]:
    """Entries of a cache folder and their bytes; none where it does not exist."""
    entries = _entries(Path(root))
    return len(entries), sum(size for _, size, _ in entries)


def evict(root: Path, limit: int, keep: Path | None = None) -> int:
    """Remove entries, those that were not used for longest first, until at most ``limit`` bytes are left.

    Safe beside other processes: an entry that one of them is reading stays readable to it, and an entry that is gone is
    computed again by whoever needs it.

    Args:
        root: Folder that holds the entries.
        limit: How many bytes the entries may take together.
        keep: An entry that stays in any case: the one that has just been written.

    Returns:
        How many were removed.
    """
    entries = sorted(_entries(root))
    total, removed = sum(size for _, size, _ in entries), 0
    for _, size, path in entries:
        if total <= limit:
            break
        if path == keep:
            continue
        try:
            path.unlink(missing_ok=True)
        except PermissionError:  # systems that do not remove a file while somebody reads it
            continue
        total, removed = total - size, removed + 1
    if removed:
        logger.info("removed %d flow entries from %s, which is limited to %d MiB", removed, root, limit >> 20)
    return removed


def _entries(root: Path) -> list[tuple[float, int, Path]]:
    """When it was used last, bytes and path of each entry."""
    found = []
    for path in root.glob("[!.]*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another process may evict too
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    return found


def _checksums(metadata: Mapping[str, str], key: str) -> dict[str, list[str]]:
    """Raises ValueError where the file is not the entry ``key`` in this format."""
    if metadata.get("format") != FORMAT or metadata.get("key") != key:
        raise ValueError("it is another entry, or of another format")
    sums = json.loads(metadata["checksums"])
    if not isinstance(sums, dict):
        raise ValueError("its checksums are not a table")
    return sums


def _sum(row: Tensor) -> str:
    return hashlib.sha256(row.contiguous().view(torch.uint8).numpy().data).hexdigest()
