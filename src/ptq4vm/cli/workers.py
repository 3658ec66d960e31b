"""Jobs of a sweep that run in other processes: what these need, and how an error gets home."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from ptq4vm.errors import PTQ4VMError, SaveError
from ptq4vm.io import write_text
from ptq4vm.system.allocator import keep_freed_memory

log = logging.getLogger(__name__)

PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
    "submitit": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
}
"""First word of a launcher's or sweeper's name, to the package that it needs."""


SLURM = ("slurm", "submitit_slurm")
"""Launchers that hand jobs to Slurm."""


def missing_plugin(arguments: Sequence[str]) -> str | None:
    """One line about a launcher or sweeper that is asked for and not installed."""
    for argument in arguments:
        group, _, name = argument.partition("=")
        kind = name.partition("_")[0]
        if group in ("hydra/launcher", "hydra/sweeper") and kind in PLUGINS and not _installed(PLUGINS[kind]):
            extra = "slurm" if kind == "submitit" else kind
            return f"{argument} needs a plugin that is not installed: pip install 'ptq4vm[{extra}]'"
        if group == "hydra/launcher" and name in SLURM and shutil.which("srun") is None:
            return f"{argument} needs Slurm, whose command srun is not on this machine: use another launcher"
    return None


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # there is no plugin at all
        return False


def prepare_worker() -> None:
    """In a launcher's worker, what the main process has done for itself; no bars that overwrite each other."""
    os.environ.setdefault("TTY_INTERACTIVE", "0")  # for rich
    logging.raiseExceptions = False
    keep_freed_memory()


class FailedJobs:
    """One line for each job that failed in a worker, brought home in files of the working folder.

    An exception would end the sweep at once: without its other batches, and without what follows at its end. Workers on
    other machines share the folder, as they share the runs.
    """

    def __init__(self) -> None:
        self._folder = Path.cwd()
        self._prefix = f".ptq4vm-failed-{uuid.uuid4().hex}"

    def add(self, line: str) -> None:
        """Note a failure. Raises :class:`PTQ4VMError` with the line itself where that cannot be done."""
        log.error(line)
        try:
            write_text(self._folder / f"{self._prefix}-{uuid.uuid4().hex}.txt", line)
        except SaveError:
            raise PTQ4VMError(line) from None

    def take(self) -> list[str]:
        """The lines, in the order of the failures; afterwards there are none."""
        paths = sorted(self._folder.glob(f"{self._prefix}-*.txt"), key=lambda path: path.stat().st_mtime)
        lines = [path.read_text(encoding="utf-8") for path in paths]
        for path in paths:
            path.unlink()
        return lines
