"""What a run has done so far, on disk, so that the same command goes on where it was killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from ptq4vm.errors import CheckpointError, one_line
from ptq4vm.io import atomic_path, parse_json, write_json, write_tensors
from ptq4vm.quant.checkpoint import read_metadata, read_tensors
from ptq4vm.runs.layout import NOTES, STATE, check_run_folder

log = logging.getLogger(__name__)


_NUMBERS = {str: float}
_KINDS: dict[str, Any] = {
    "fingerprint": {str: str},
    "timing": {"stages": _NUMBERS, "blocks": _NUMBERS},
    "shared": [str],
    "steps": {str: int},
    "results": {str: {"mean": _NUMBERS, "clips": {str: _NUMBERS}}},
    "layers": _NUMBERS,
    "mixed_bits": {"weight_bits": {str: int}, "activation_bits": {str: int}},
    "finished": bool,
}
"""What notes are, by name: a kind, a list of one, or a mapping, of any keys (``str``) or of those that it names."""


def fingerprint(**parts: Any) -> dict[str, str]:
    """Compute the SHA-256 of each of several settings (dataclasses, mappings, plain values), by name."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True, default=plain).encode()).hexdigest()
        for name, part in parts.items()
    }


_HASH = "sha256"


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Compute one hexadecimal SHA-256 over the names and values of tensors."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def recorded_fingerprint(run_dir: Path) -> dict[str, str]:
    """Fingerprint of a run as its folder tells it: SHA-256 of each part, by name; empty where it tells none."""
    try:
        notes = parse_json((run_dir / STATE / NOTES).read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in notes["fingerprint"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class RunState:
    """The ``state`` folder of a run: fingerprint, results of finished steps, and half-done stages.

    Args:
        run_dir: The run folder.
        identity: Fingerprint of everything that decides the result.

    Raises:
        CheckpointError: The folder holds a run with another fingerprint, or its notes are damaged.
        ConfigError: It holds files that a run would replace and that are not of a run.
    """

    def __init__(self, run_dir: Path, identity: Mapping[str, str]) -> None:
        check_run_folder(run_dir)
        self.folder = run_dir / STATE
        self._notes = self.folder / NOTES
        self.notes: dict[str, Any] = {"fingerprint": dict(identity)}
        self._running: tuple[str, float] | None = None
        if self._notes.is_file():
            try:
                self.notes = parse_json(self._notes.read_text(encoding="utf-8"))
                found = _checked(self.notes)["fingerprint"]
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise CheckpointError(
                    f"{self._notes} is damaged ({type(error).__name__}): start anew with overwrite=true"
                ) from error
            other = [key for key in sorted({*found, *identity}) if found.get(key) != identity.get(key)]
            if other:
                raise CheckpointError(
                    f"{run_dir} holds a run with other settings ({', '.join(other)}): "
                    "choose another run_dir, or start anew with overwrite=true"
                )

    def get(self, key: str) -> Any:
        """Read the note that was put down under a name, or ``None`` where there is none."""
        return self.notes.get(key)

    def put(self, key: str, value: Any) -> None:
        """Write a note down. Raises :class:`ptq4vm.errors.SaveError`."""
        self.notes[key] = value
        write_json(self._notes, self.notes)

    @property
    def timing(self) -> dict[str, Any]:
        """``{"stages": {name: seconds}, "blocks": {path: seconds}}``, over all runs so far."""
        return self.get("timing") or {"stages": {}, "blocks": {}}

    @contextlib.contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the seconds that a stage takes to those of earlier runs."""
        self._running = (stage, time.perf_counter())
        try:
            yield
        finally:
            self.tick()
            self._running = None

    def tick(self, block: str = "", seconds: float = 0.0) -> None:
        """Write down the time of the running stage up to now, and that of a finished block."""
        timing = self.timing
        if self._running is not None:
            stage, began = self._running
            now = time.perf_counter()
            timing["stages"][stage] = timing["stages"].get(stage, 0.0) + now - began
            self._running = (stage, now)
        if block:
            timing["blocks"][block] = timing["blocks"].get(block, 0.0) + seconds  # two passes visit a block twice
        self.put("timing", timing)

    def take_over(self, stage: str, timing: Mapping[str, Any]) -> None:
        """Count the seconds of a stage that another run has done as this run's own."""
        own = self.timing
        own["stages"][stage] = own["stages"].get(stage, 0.0) + timing["seconds"]
        own["blocks"].update(timing["blocks"])
        self.put("timing", own)
        self.put("shared", [*(self.get("shared") or []), stage])

    def count_steps(self, stage: str, steps: int) -> None:
        """Write down how many gradient steps a stage took."""
        self.put("steps", {**(self.get("steps") or {}), stage: steps})

    def save_tensors(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Keep tensors under a name. Raises :class:`ptq4vm.errors.SaveError`."""
        _keep(self.folder / f"{name}.safetensors", tensors, metadata)

    def load_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and metadata kept under a name; ``None`` when there are none that can be read: make them again."""
        return _undamaged(self.folder / f"{name}.safetensors")

    def path(self, name: str) -> Path:
        """Path of a file in the state folder."""
        return self.folder / name


class SharedStages:
    """Finished reconstructions of any run, found by everything that decides them.

    Args:
        folder: Shared by the runs of a sweep; made when something is kept.
        identity: Fingerprint of everything that decides the result.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        key = hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:32]
        self._path = folder / f"{key}.safetensors"

    def load(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Tensors and metadata, ``None`` when no run has finished; a damaged file counts as none."""
        return _undamaged(self._path)

    def save(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Keep a finished stage. Two runs that finish at once write the same. Raises SaveError."""
        _keep(self._path, tensors, metadata)


def _checked(notes: Any) -> dict[str, Any]:
    """Notes as they were read. Raises ValueError where one is of another kind than was written."""
    if not isinstance(notes, dict) or "fingerprint" not in notes:
        raise ValueError("no notes of a run")
    for name, value in notes.items():
        if name in _KINDS and value is not None and not _is(value, _KINDS[name]):
            raise ValueError(f"{name} is of another kind")
    return notes


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is(each, kind[0]) for each in value)
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return False
        if str in kind:
            return all(_is(each, kind[str]) for each in value.values())
        return all(name in value and _is(value[name], own) for name, own in kind.items())
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _keep(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, and what tells :func:`_undamaged` that they are those."""
    write_tensors(path, tensors, {**metadata, _HASH: _hash_of(tensors, metadata)})


def _hash_of(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    text = json.dumps(dict(notes), sort_keys=True)
    return hashlib.sha256(f"{tensors_hash(tensors)} {text}".encode()).hexdigest()


def _undamaged(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata of a file, ``None`` where there is none; a damaged one is told of and counts as none."""
    if not path.is_file():
        return None
    try:
        tensors, notes = read_tensors(path), read_metadata(path)
        known = notes.pop(_HASH, "")
        if known != _hash_of(tensors, notes):  # a name or a number of it, which a header that is well formed hides
            raise CheckpointError(f"{path} is damaged (its checksum differs): quantize again")
    except CheckpointError as error:
        log.warning("%s; making it again", one_line(error).partition(": quantize again")[0])
        return None
    return tensors, notes


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints so that a kill leaves the whole file or none. Raises SaveError on a full disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save under a temporary name, then rename."""
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


def newest_checkpoint(folder: Path) -> Path | None:
    """The last epoch's Lightning checkpoint that is whole, or ``None``; damaged ones are removed."""
    for path in sorted(folder.glob("[!.]*.ckpt"), reverse=True):
        if _is_whole(path):
            return path
        log.warning("%s is damaged: going on from what was saved before it", path)
        path.unlink()
    return None


def _is_whole(path: Path) -> bool:
    """Whether every entry of the archive that torch writes has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError):
        return False
