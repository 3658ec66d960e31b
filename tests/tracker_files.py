"""Reads back what trackers write: W&B's transaction log of an offline run, TensorBoard's events."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HEADER, BLOCK = 7, 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def _records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of 32 KiB, each record in one part or several."""
    assert content[:4] == b":W&B"
    position, parts = HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # too little for a header: padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER
        parts += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
        assert kind in (FULL, FIRST, MIDDLE, LAST), kind


class WandbRun(NamedTuple):
    """What one offline run holds."""

    name: str
    group: str
    job_type: str
    id: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    files: set[str]
    exit_code: int | None

    def logged(self, key: str) -> list[Any]:
        """Values of a key, in order."""
        return [row[key] for row in self.history if key in row]


def read_wandb(folder: Path) -> list[WandbRun]:
    """Offline runs below a run folder's ``logs/wandb``, oldest first."""
    return [_read_run(path) for path in sorted((folder / "logs" / "wandb").glob("offline-run-*"))]


def _read_run(folder: Path) -> WandbRun:
    """A run as soon as its end is written: W&B's service writes after `finish` has returned, late on a busy machine."""
    deadline = time.monotonic() + 60
    while True:
        found = _parse_run(folder)
        if found is not None and found.exit_code is not None:
            return found
        assert time.monotonic() < deadline, f"{folder} never ends"
        time.sleep(0.2)


def _parse_run(folder: Path) -> WandbRun | None:
    from wandb.proto import wandb_internal_pb2

    (log,) = folder.glob("*.wandb")
    run: Any = None
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    exit_code = None
    for content in _records(log.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            summary |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "exit":
            exit_code = record.exit.exit_code
    files = {path.relative_to(folder / "files").as_posix() for path in (folder / "files").rglob("*") if path.is_file()}
    if run is None:
        return None
    return WandbRun(
        run.display_name, run.run_group, run.job_type, run.run_id, config, history, summary, files, exit_code
    )


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
