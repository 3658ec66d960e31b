"""The columns of a report's results, each described once for ``results.csv``, ``results.md`` and the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ptq4vm.metrics import METRIC_NAMES, METRICS
from ptq4vm.report.groups import Group, Reference, SeedSpread
from ptq4vm.runs.reading import Run


@dataclass(frozen=True)
class ResultColumn:
    """One column: what it is called in each of the three tables, what a run has there, and how that is written.

    Every column is in ``results.csv``, which has a row for each run. The two others have a row for each group of seeds
    and show a column's mean over them.

    Attributes:
        name: Heading in ``results.csv``.
        of: Function from a run to its value, as it is written to ``results.csv``; ``None`` where it is not known.
        markdown: Heading in ``results.md``; empty where the column is not there.
        title: Heading on the page; empty where the column is not there.
        note: Fainter line below ``title``.
        unit: Number that a value is divided by in ``results.md`` and on the page.
        decimals: Digits behind the point in both.
        float_value: Function from a float network to its value, or to ``None``.
        metric: The metric that the column shows: its deviation over seeds is written too, and the best is marked.
        signed: Whether a value is a difference, written with its sign.
    """

    name: str
    of: Callable[[Run], Any]
    markdown: str = ""
    title: str = ""
    note: str = ""
    unit: float = 1.0
    decimals: int = 2
    float_value: Callable[[Reference], float | None] = lambda base: None
    metric: str = ""
    signed: bool = False

    def spread(self, group: Group) -> SeedSpread | None:
        """Mean and deviation over the seeds of a group, in ``unit``; ``None`` where no seed has a value."""
        found = group.spread(self.of)
        return None if found is None else SeedSpread(found.mean / self.unit, found.deviation / self.unit, found.n)

    def float_number(self, base: Reference) -> float | None:
        """The value of a float network, in ``unit``; ``None`` where it is not known."""
        value = self.float_value(base)
        return None if value is None else value / self.unit


def _plain(*names: str) -> Iterator[ResultColumn]:
    """Columns of ``results.csv`` alone that are attributes of a run."""
    return (ResultColumn(name, attrgetter(name)) for name in names)


def _error(name: str) -> ResultColumn:
    title, decimals = METRICS[name].title, METRICS[name].decimals
    return ResultColumn(
        name,
        lambda run: run.mean.get(name),
        title,
        title,
        "Δ FP32",
        decimals=decimals,
        float_value=lambda base: base.metrics.get(name),
        metric=name,
    )


def _delta(name: str) -> ResultColumn:
    heading = f"Δ {METRICS[name].title}" if name == "mad" else ""  # the page has the others as second lines
    return ResultColumn(f"delta_{name}", lambda run: run.delta(name), heading, signed=True)


def _fp32(name: str) -> ResultColumn:
    return ResultColumn(f"fp32_{name}", lambda run: run.reference.get(name))


def _cost(name: str, markdown: str = "", title: str = "", note: str = "", unit: float = 1.0) -> ResultColumn:
    return ResultColumn(
        name, lambda run: run.cost.get(name), markdown, title, note, unit, float_value=lambda base: base.cost.get(name)
    )


COLUMNS: tuple[ResultColumn, ...] = (
    *_plain("name", "model", "method"),
    ResultColumn("stages", lambda run: "+".join(run.planned)),
    *_plain("bits", "weight_bits", "activation_bits", "seed", "status"),
    *map(_error, METRIC_NAMES),
    *map(_delta, METRIC_NAMES),
    *map(_fp32, METRIC_NAMES),
    ResultColumn("steps", lambda run: run.total_steps, "steps", "Steps", decimals=0),
    ResultColumn("seconds", lambda run: run.seconds, "seconds", "Seconds", decimals=0),
    *_plain("total_seconds"),
    _cost("stored_bytes", "stored MB", "Stored", "MB", 1e6),
    _cost("bops", "GBOPs", "GBOPs", "per frame", 1e9),
    _cost("gmacs"),
    _cost("paper_gflops", "GFLOPs (paper)", "GFLOPs", "paper"),
    _cost("paper_mb", "MB (paper)", "MB", "paper"),
    *_plain("preset", "data", "flow"),
    ResultColumn("choices", lambda run: json.dumps(dict(run.choices), ensure_ascii=False) if run.choices else None),
    *_plain("machine", "version", "command", "error"),
    ResultColumn("folder", lambda run: str(run.folder)),
    ResultColumn("worst_clip", attrgetter("worst"), "worst clip", "Worst clip", "times FP32"),
)
"""All columns, in the order of each table. ``delta_*`` is a run's metric less that of its own float stage, ``fp32_*``
the latter; ``worst_clip`` is the largest MAD of a clip as a multiple of FP32's on it; ``seconds`` leaves evaluations
out; ``choices`` is a JSON object of the other values of a sweep. Tables of
groups have the method, its bits and its seeds in front."""

MARKDOWN_COLUMNS = tuple(column for column in COLUMNS if column.markdown)
PAGE_COLUMNS = tuple(column for column in COLUMNS if column.title)
