"""Lightning Trainers and loggers of a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ptq4vm.errors import ConfigError

TrainerFactory = Callable[..., pl.Trainer]
LoggerFactory = Callable[[str], list[Logger]]

EVALUATING = {
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
        ConfigError: Lightning refuses the arguments, because there is no GPU for example.
    """

    def make(callbacks: list[pl.Callback] | None = None, **arguments: Any) -> pl.Trainer:
        try:
            return build(callbacks=[*(callbacks or []), RichProgressBar()], default_root_dir=folder, **arguments)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"trainer: {error}") from error

    return make


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Around a Trainer's work: an interruption is a KeyboardInterrupt again.

    Lightning turns it into ``sys.exit(1)`` and leaves the process deaf to Ctrl-C, which would end a notebook's kernel.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


def logging_into(folder: Path, build: Callable[..., Logger]) -> LoggerFactory:
    """Loggers of a training stage below ``folder/logs``; a resumed stage gets a folder of its own (``biq-2``)."""

    def make(stage: str) -> list[Logger]:
        name, number = stage, 1
        while (folder / "logs" / name).exists():
            number += 1
            name = f"{stage}-{number}"
        return [build(save_dir=str(folder / "logs"), name=name)]

    return make
