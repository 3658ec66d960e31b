"""What happens when a sweep has ended: its report."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ptq4vm.cli import build
from ptq4vm.errors import PTQ4VMError
from ptq4vm.report.page import write_report
from ptq4vm.report.tracking import log_sweep_table
from ptq4vm.runs.layout import RUN

log = logging.getLogger(__name__)


class SweepReport(Callback):
    """Gathers the runs of a sweep into ``report/`` of its folder, and logs the table where the logger takes one.

    A report that fails is a warning: the runs are there, and ``ptq4vm report FOLDER`` makes it again.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra once, after the last job."""
        folder = Path(config.hydra.sweep.dir)
        if not any(folder.rglob(RUN)):  # of `evaluate`, say
            return
        try:
            page = write_report([folder], folder / "report")
            with (page.parent / "results.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            log_sweep_table(rows, build.sweep_tracking(config, folder))
        except PTQ4VMError as error:
            log.warning("no report on %s: %s", folder, error)
            return
        log.info("report: %s, results.md and results.csv beside it", page)
