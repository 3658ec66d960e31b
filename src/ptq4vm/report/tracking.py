"""Experiment trackers: what a run shows in TensorBoard or Weights & Biases beside Lightning's losses."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import yaml
from pytorch_lightning.loggers import CSVLogger, Logger

from ptq4vm.errors import ConfigError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.io import write_json
from ptq4vm.media.images import open_image
from ptq4vm.report.tables import metrics_markdown, shared_metrics
from ptq4vm.runs.layout import LOGS, RUN
from ptq4vm.runs.loggers import logging_into
from ptq4vm.system.trainers import LoggerFactory

log = logging.getLogger(__name__)

Results = Mapping[str, EvaluationResult]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunInfo:
    """The names that a tracker gives a run.

    Attributes:
        folder: Run folder (of a sweep's table: the sweep's folder); what is written goes below its ``logs``.
        name: Name of the run.
        group: Name of the sweep that the run belongs to, or ``None``.
        config: The whole configuration, in plain values.
    """

    folder: Path
    name: str
    group: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


class Tracking:
    """A tracker: gives the loggers of each training stage, and takes what is logged once. This one takes nothing.

    Calling it with a stage's name gives that stage's loggers: it is a
    :data:`ptq4vm.system.trainers.LoggerFactory`. As a context manager it is closed at its end, with errors as failed.
    """

    def __init__(self, loggers: LoggerFactory) -> None:
        self._loggers = loggers

    def __call__(self, stage: str) -> list[Logger]:
        """Loggers of a training stage; empty for none."""
        return self._loggers(stage)

    def results(self, stages: Results, sheets: Path) -> None:
        """Log the metrics of every stage and the contact sheets of a folder."""

    def sweep_table(self, rows: Sequence[Row]) -> None:
        """Log the summary of a sweep: one row a run; keys of the first row are the columns."""

    def close(self, failed: bool = False) -> None:
        """Let go of what is open."""

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)


class _Service(Tracking):
    """What trackers share: CSV files beside them, because reports read those, and a note of what was logged.

    A finished run whose command is given again trains nothing and is not logged a second time.
    """

    kind = ""

    def __init__(self, info: RunInfo) -> None:
        super().__init__(logging_into(info.folder, partial(CSVLogger, version="")))
        self._info = info
        self._logs = info.folder / LOGS
        self._note = self._logs / self.kind / RUN
        self._trained = False

    def __call__(self, stage: str) -> list[Logger]:
        """The stage's CSV file and the tracker's own logger."""
        self._trained = True
        return [*self._loggers(stage), self._logger(stage)]

    def results(self, stages: Results, sheets: Path) -> None:
        """Log the metrics of every stage (``metrics/...``) and the contact sheets (``sheets/<clip>``), once."""
        if not stages or (self._read().get("complete") and not self._trained):
            return
        self._log_results(stages, sorted(sheets.glob("*.png")))
        self._write(complete=True)

    def _logger(self, stage: str) -> Logger:
        raise NotImplementedError

    def _log_results(self, stages: Results, sheets: Sequence[Path]) -> None:
        raise NotImplementedError

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or damaged: what it would save is logging twice
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, **values: Any) -> None:
        write_json(self._note, {**self._read(), **values})


class WandbTracking(_Service):
    """Weights & Biases: one run for each quantize run, whatever its stages.

    One rather than one a stage: a row of W&B's table is then a quantize run, with its configuration and its final
    metrics side by side, which is what people sort and filter by; the stages' losses are apart by their names
    (``biq/...``, ``gac/...``), each over its own step. The runs of a sweep share a group.

    Args:
        info: The run's folder, names and configuration.
        project: Name of the W&B project.
        entity: The W&B user or team; your own when ``None``.
        group: Name of the group, in place of the sweep's name.
        tags: Tags of the W&B run.
        offline: Whether nothing is uploaded; ``None`` lets :func:`wandb_mode` decide.

    Raises:
        ConfigError: wandb is not installed.
    """

    kind = "wandb"

    def __init__(
        self,
        info: RunInfo,
        project: str = "ptq4vm",
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        offline: bool | None = None,
    ) -> None:
        _need("wandb", "wandb")
        super().__init__(info)
        self._arguments: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group or info.group,
            "tags": list(tags),
        }
        self._offline = offline
        self._run: Any = None

    def _logger(self, stage: str) -> Logger:
        from pytorch_lightning.loggers import WandbLogger

        run = self._begin("quantize", self._info.name)
        run.define_metric(f"{stage}/*", step_metric="trainer/global_step")
        return WandbLogger(experiment=run)

    def _log_results(self, stages: Results, sheets: Sequence[Path]) -> None:
        import wandb

        run = self._begin("quantize", self._info.name)
        final = list(stages)[-1]
        names = shared_metrics(stages)
        columns: list[str | int] = ["stage", *names]
        rows = [[stage, *(result.mean[name] for name in names)] for stage, result in stages.items()]
        run.log({f"metrics/{stage}/{name}": r.mean[name] for stage, r in stages.items() for name in names})
        run.log({"metrics/stages": wandb.Table(columns=columns, data=rows)})
        for path in sheets:
            with open_image(path) as picture:
                run.log({f"sheets/{path.stem}": wandb.Image(picture, caption=path.stem.replace("__", "/"))})
        run.summary.update({name: stages[final].mean[name] for name in names})

    def sweep_table(self, rows: Sequence[Row]) -> None:
        """Log the summary of a sweep as the table ``results`` of a run of its own, in the sweep's group."""
        import wandb

        if not rows:
            return
        columns: list[str | int] = list(rows[0])
        data = [[row.get(str(column)) for column in columns] for row in rows]
        run = self._begin("sweep", f"{self._info.name} (table)")
        run.log({"results": wandb.Table(columns=columns, data=data, allow_mixed_types=True)})

    def _begin(self, job: str, name: str) -> Any:
        """The W&B run, begun or gone on with (a resumed run keeps its id, and so its place in W&B)."""
        if self._run is not None:
            return self._run
        import wandb

        mode: Any = wandb_mode(self._offline)  # W&B itself refuses what WANDB_MODE says wrongly
        (self._logs / self.kind).mkdir(parents=True, exist_ok=True)
        known = self._read().get("id")
        try:
            self._run = wandb.init(
                **self._arguments,
                name=name,
                job_type=job,
                dir=str(self._logs),
                id=known,
                resume="allow" if known and mode == "online" else None,
                mode=mode,
                config=dict(self._info.config),
                settings=wandb.Settings(silent=True, console="off"),  # our terminal has a table of its own
            )
        except wandb.errors.Error as error:
            line = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(f"logger=wandb: {line}; log in with `wandb login` or set logger.offline=true") from error
        self._write(id=self._run.id)
        if mode == "offline":
            log.info("W&B is offline; to upload later: wandb sync %s", Path(self._run.dir).parent)
        return self._run

    def close(self, failed: bool = False) -> None:
        """Finish the W&B run."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None


class TensorBoardTracking(_Service):
    """TensorBoard: one folder of events for each quantize run, ``logs/tensorboard``, whatever its stages.

    ``tensorboard --logdir`` calls every folder with events a run, so a sweep shows one curve a run, named by its path.
    Metrics are charts over the stages (step 0 is the first in the order of the run), and a table under Text.

    Args:
        info: The run's folder, names and configuration.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    kind = "tensorboard"

    def __init__(self, info: RunInfo) -> None:
        _need("tensorboard", "tensorboard")
        super().__init__(info)

    def _logger(self, stage: str) -> Logger:
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(str(self._logs), name=self.kind, version="", default_hp_metric=False)

    def _log_results(self, stages: Results, sheets: Sequence[Path]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self._logs / self.kind)) as writer:
            writer.add_text("configuration", _code(yaml.safe_dump(dict(self._info.config), sort_keys=False)))
            writer.add_text("metrics", metrics_markdown(stages))
            for step, result in enumerate(stages.values()):
                for name in shared_metrics(stages):
                    writer.add_scalar(f"metrics/{name}", result.mean[name], step)
            for path in sheets:
                with open_image(path) as picture:
                    writer.add_image(f"sheets/{path.stem}", np.asarray(picture.convert("RGB")), dataformats="HWC")

    def sweep_table(self, rows: Sequence[Row]) -> None:
        """Log the summary of a sweep as a Markdown table, under Text."""
        from torch.utils.tensorboard import SummaryWriter

        if not rows:
            return
        columns = list(rows[0])
        lines = [columns, ["---"] * len(columns), *([str(row.get(key, "")) for key in columns] for row in rows)]
        with SummaryWriter(str(self._logs / self.kind)) as writer:
            writer.add_text("results", "\n".join(f"| {' | '.join(line)} |" for line in lines))


def log_sweep_table(rows: Sequence[Row], tracking: Tracking) -> None:
    """Log a sweep's summary, one mapping a run in the order of the table, and close the tracker.

    Numbers may be texts, as they come out of ``results.csv``; empty texts are no values.
    """
    with tracking:
        tracking.sweep_table([{key: _number(value) for key, value in row.items()} for row in rows])


def wandb_mode(offline: bool | None) -> str:
    """``online`` or ``offline`` as asked; when ``None``, as ``WANDB_MODE`` says, else online for who has logged in."""
    if offline is not None:
        return "offline" if offline else "online"
    return os.environ.get("WANDB_MODE") or ("online" if wandb_logged_in() else "offline")


def wandb_logged_in() -> bool:
    """Tell whether W&B finds a key: in the environment, its settings, or the netrc file that ``wandb login`` writes."""
    import wandb

    settings = wandb.setup().settings
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or settings.api_key:
        return True
    places = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or settings.base_url).netloc
    for place in places:
        try:
            known = netrc.netrc(os.path.expanduser(place)).authenticators(host)  # noqa: PTH111  # netrc wants a str
        except (OSError, netrc.NetrcParseError):
            continue
        if known and known[2]:
            return True
    return False


def _number(value: Any) -> Any:
    """The number that a text stands for, ``None`` for an empty one; anything else as it is."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value or None


def _need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"logger={extra} needs {package}, which is not installed: pip install 'ptq4vm[{extra}]'")


def _code(text: str) -> str:
    """A text as Markdown that is shown letter by letter."""
    return "\n".join(f"    {line}" for line in text.splitlines())
