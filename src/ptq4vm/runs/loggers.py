"""Where the loggers of a run write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytorch_lightning.loggers import Logger

from ptq4vm.runs.layout import LOGS
from ptq4vm.system.trainers import LoggerFactory


def logging_into(folder: Path, build: Callable[..., Logger]) -> LoggerFactory:
    """Loggers of a training stage below ``folder/logs``; a resumed stage gets a folder of its own (``biq-2``)."""

    def make(stage: str) -> list[Logger]:
        name, number = stage, 1
        while (folder / LOGS / name).exists():
            number += 1
            name = f"{stage}-{number}"
        return [build(save_dir=str(folder / LOGS), name=name)]

    return make
