"""What a run leaves for people and other tools beside the network itself."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptq4vm.errors import SaveError
from ptq4vm.io import write_json
from ptq4vm.quant.names import CHOICES, TENSORS

log = logging.getLogger(__name__)

RUNNING, FINISHED, FAILED = "running", "finished", "failed"

METRICS, TIMING, SHEETS, LOGS, STATE = "metrics.json", "timing.json", "sheets", "logs", "state"
RUN, LAYERS, FRAMES = "run.json", "layers.json", "frames.csv"


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
        found = json.loads((run_dir / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: it is written anew
        return {}
    return found if isinstance(found, dict) else {}


def clear_run_folder(run_dir: Path) -> None:
    """Remove what an earlier run left, and nothing else; a folder without a run stays as it is.

    Raises:
        SaveError: Something cannot be removed.
    """
    if not (run_dir / STATE).is_dir():
        return
    try:
        for name in (TENSORS, CHOICES, METRICS, TIMING, LAYERS, RUN):
            (run_dir / name).unlink(missing_ok=True)
        for name in (SHEETS, LOGS, STATE):  # the state last: while it is there, this can be done again
            shutil.rmtree(run_dir / name, ignore_errors=False) if (run_dir / name).exists() else None
    except OSError as error:
        raise SaveError(f"cannot clear {run_dir}: {error}; choose another run_dir") from error
