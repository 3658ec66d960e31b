"""Lightning Trainers and loggers of a run."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from ptq4vm import errors
from ptq4vm.errors import ConfigError, PTQ4VMError, TrainingError
from ptq4vm.system.allocator import keep_freed_memory

TrainerFactory = Callable[..., pl.Trainer]
LoggerFactory = Callable[[str], list[Logger]]

ONE_DEVICE: dict[str, Any] = {"devices": 1, "strategy": "auto"}
"""Arguments of a Trainer for work that several processes cannot share: whatever is configured, one does it."""

_LIGHTNING = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")

EVALUATING = {
    **ONE_DEVICE,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "inference_mode": True,
}
"""Arguments of a Trainer that only evaluates."""


def default_trainer(**arguments: Any) -> pl.Trainer:
    """A Trainer on one device of the best kind that there is, reproducible where that is possible."""
    settings: dict[str, Any] = {"accelerator": "auto", "devices": 1, "deterministic": "warn", "log_every_n_steps": 1}
    return pl.Trainer(**{**settings, **arguments})


def trainers(folder: Path | None = None, build: Callable[..., pl.Trainer] = default_trainer) -> TrainerFactory:
    """Add a progress bar, and a folder for whatever a Trainer writes, to what builds Trainers.

    Raises (when a Trainer is built):
        ConfigError: Lightning refuses the arguments, because there is no GPU for example, or would start the whole
            command once for each process.
    """

    def make(callbacks: list[pl.Callback] | None = None, **arguments: Any) -> pl.Trainer:
        ours = [RichProgressBar(), _Process()]
        try:
            trainer = build(callbacks=[*(callbacks or []), *ours], default_root_dir=folder, **arguments)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"trainer: {error}") from error
        spawns = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
        if trainer.world_size > 1 and not (spawns and trainer.num_nodes == 1):
            raise ConfigError(
                f"trainer: {trainer.num_nodes} machines with {type(trainer.strategy).__name__} would each run the "
                "whole command in every process; use trainer.strategy=ddp_spawn on one machine, as trainer=ddp_cpu does"
            )
        return trainer

    return make


def processes(make: TrainerFactory) -> int:
    """The number of processes that share the batches of a training stage."""
    return make(logger=False, enable_checkpointing=False).world_size


class _Process(pl.Callback):
    """Does in every process of a distributed run what the command line has done in the first."""

    def __init__(self) -> None:
        self._filters = list(warnings.filters)
        self._levels = {name: logging.getLogger(name).level for name in ("pytorch_lightning", *_LIGHTNING)}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Called at the start, in every process."""
        if trainer.world_size == 1:
            return
        keep_freed_memory()
        warnings.filters[:] = self._filters  # type: ignore[index]
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Around a Trainer's work: an interruption is a KeyboardInterrupt again, and SIGTERM ends the process.

    Lightning turns the first into ``sys.exit(1)`` and leaves the process deaf to Ctrl-C, which would end a notebook's
    kernel. The second it heeds between training steps alone: during an evaluation it would be lost, and a sweep would
    go on with its next job. An error of ours in one of several processes is that error again.

    Raises:
        TrainingError: One of several processes was killed.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
        if trainer.received_sigterm:
            raise SIGTERMException
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise
    except ProcessRaisedException as error:
        name, _, line = str(error).strip().splitlines()[-1].partition(": ")
        kind = getattr(errors, name.rpartition(".")[2], None)
        if name.startswith(f"{errors.__name__}.") and isinstance(kind, type) and issubclass(kind, PTQ4VMError):
            raise kind(line) from None
        raise
    except ProcessExitedException as error:
        raise TrainingError(
            f"one of the processes that train together ended: {error}; is there memory enough?"
        ) from error
