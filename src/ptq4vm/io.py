"""Writing files so that a reader never meets half of one, with one clear line when the disk refuses."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import platformdirs
from safetensors import SafetensorError

from ptq4vm.errors import SaveError

try:
    import fcntl
except ImportError:  # not on Windows, where what a kill has left stays
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor


def remedy(error: BaseException, other: str) -> str:
    """What to do about a failed write: ``other``, and free some space where there was none left."""
    full = (errno.ENOSPC, errno.EDQUOT)
    lacking = getattr(error, "errno", None) in full or "No space left" in str(error)
    return f"free some space or {other}" if lacking else other


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` (same suffix); it becomes ``target`` when the block ends well.

    Raises:
        SaveError: The folder cannot be made or the file cannot be written (disk full, no permission).
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle) as held:
            _lock(held)  # tells what is being written from what a kill has left
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise SaveError(f"cannot write {target}: {error}; {remedy(error, 'choose another folder')}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _lock(file: IO[str], wait: bool = True) -> bool:
    """Lock an open file until it is closed, or the process ends; whether that was possible."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system knows no locks
        return False
    return True


def remove_leftovers(folder: Path, stem: str = "*", suffix: str = ".*") -> None:
    """Remove files that :func:`atomic_path` was writing when its process was killed; those being written stay.

    Args:
        folder: Where they lie; nothing happens where it does not exist.
        stem: Name of the file that was wanted, without suffix; all when not given.
        suffix: Suffix of the file; any when not given.
    """
    name = stem if stem == "*" else glob.escape(stem)
    for path in folder.glob(f".{name}-{'[a-z0-9_]' * 8}{suffix}"):
        with contextlib.suppress(OSError), path.open() as file:
            if path.is_file() and _lock(file, wait=False):
                path.unlink()


def write_text(target: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises :class:`SaveError`."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path | str, value: Any) -> None:
    """Write indented JSON atomically; NaN is refused, because JSON has none. Raises :class:`SaveError`, ValueError."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def parse_json(text: str, finite: bool = True) -> Any:
    """What JSON text holds.

    Args:
        text: JSON text, as a file has it.
        finite: Whether numbers that are not finite are refused: they can be read, but not be written again.

    Raises:
        ValueError: It is no JSON, is nested deeper than Python follows, or has such a number.
    """
    number = _finite if finite else float
    try:
        return json.loads(text, parse_float=number, parse_constant=number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no finite number")
    return value


def write_tensors(target: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically. Raises :class:`SaveError`."""
    from safetensors.torch import save_file  # late: it imports torch, which most that write files do not need

    with atomic_path(target) as temporary:
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, temporary, dict(metadata or {}))
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in alphabetical order: safetensors writes it in another order each time.

    The header keeps its length, and everything else its place.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # else it was written with other escapes, and stays
            file.seek(8)
            file.write(text.ljust(length))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def default_cache_dir() -> Path:
    """``$PTQ4VM_CACHE`` where it is set, or the user's cache folder: for what can be made or fetched again."""
    return Path(os.environ.get("PTQ4VM_CACHE") or platformdirs.user_cache_path("ptq4vm"))
