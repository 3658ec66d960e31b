"""The result of a run as a table for the terminal, for Markdown, and as ``metrics.json``."""

from __future__ import annotations

from rich.table import Table

from ptq4vm.errors import ConfigError
from ptq4vm.metrics import METRICS
from ptq4vm.runs.metrics import Stages

_STAGE_TITLES = {"fp32": "FP32", "rtn": "round to nearest", "biq": "BIQ", "gac": "GAC + OFA"}


def stage_title(stage: str) -> str:
    """The title of a stage in tables; its own name when it has none."""
    return _STAGE_TITLES.get(stage, stage)


def shared_metrics(stages: Stages) -> list[str]:
    """Names of the metrics that every stage has, in the order of tables."""
    return [name for name in METRICS if all(name in result.mean for result in stages.values())]


def metrics_table(stages: Stages, title: str | None = None, reference: str = "fp32") -> Table:
    """Stages in rows, mean metrics in columns (lower is better), for the terminal.

    Args:
        stages: Name of each stage to its result, at least one.
        title: Heading above the table.
        reference: Stage that the last column compares MAD with; the column is left out when it is not in ``stages``.

    Returns:
        A rich table; the best value of each metric among the stages other than ``reference`` is bold.

    Raises:
        ConfigError: There is no stage.
    """
    table = Table(title=title, title_justify="left")
    header, rows = _cells(stages, reference)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(f"[bold]{text}[/bold]" if best else text for text, best in row))
    return table


def metrics_markdown(stages: Stages, reference: str = "fp32") -> str:
    """The table of :func:`metrics_table` as Markdown, without a trailing newline. Raises :class:`ConfigError`."""
    header, rows = _cells(stages, reference)
    lines = [header, [":--", *["--:"] * (len(header) - 1)]]
    lines += [[f"**{text}**" if best else text for text, best in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(stages: Stages, reference: str) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Headings, and rows of (text, whether it is the best of its column)."""
    if not stages:
        raise ConfigError("there is no stage to show in a table")
    names = shared_metrics(stages)
    header = ["stage", *(METRICS[name].title for name in names)]
    base = stages[reference].mean["mad"] if reference in stages else None
    if base is not None:
        header.append(f"MAD / {stage_title(reference)}")
    rivals = [result.mean for stage, result in stages.items() if stage != reference]
    best = {name: min(mean[name] for mean in rivals) for name in names} if len(rivals) > 1 else {}
    rows = []
    for stage, result in stages.items():
        row = [(stage_title(stage), False)]
        for name in names:
            value = result.mean[name]
            row.append((METRICS[name].text(value), stage != reference and name in best and value == best[name]))
        if base is not None:
            value = result.mean["mad"]
            ratio = f"{value / base:.2f}x" if base > 0 else "–"
            row.append((ratio, stage != reference and value == best.get("mad")))
        rows.append(row)
    return header, rows
