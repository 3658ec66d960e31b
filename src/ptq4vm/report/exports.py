"""A report's tables for other programs: ``results.csv`` a row a run, ``results.md``, a row a group of seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from ptq4vm.metrics import METRIC_NAMES
from ptq4vm.report.groups import Group, Reference, Spread, best_marks
from ptq4vm.runs.reading import Run

METRIC_TITLES = {"mad": "MAD", "mse": "MSE", "grad": "Grad", "conn": "Conn", "dtssd": "dtSSD"}
COSTS = ("stored_bytes", "bops", "gmacs", "paper_gflops", "paper_mb")

CSV_COLUMNS = (
    *("name", "model", "method", "stages", "bits", "weight_bits", "activation_bits", "seed", "status"),
    *METRIC_NAMES,
    *(f"delta_{name}" for name in METRIC_NAMES),
    *(f"fp32_{name}" for name in METRIC_NAMES),
    *("steps", "seconds", "total_seconds"),
    *COSTS,
    *("preset", "data", "flow", "choices", "machine", "version", "command", "error", "folder"),
)
"""Columns of ``results.csv``. ``delta_*`` is a run's metric less that of its own float stage, ``fp32_*`` the latter;
``seconds`` leaves evaluations out; ``choices`` is a JSON object of the other values of a sweep."""


def results_csv(runs: Sequence[Run]) -> str:
    """One row for each run, whatever its status; empty where a value is not known."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(run) for run in runs)
    return text.getvalue()


def _record(run: Run) -> dict[str, object]:
    record: dict[str, object] = {
        key: getattr(run, key)
        for key in CSV_COLUMNS
        if hasattr(run, key) and key not in ("stages", "steps", "choices", "folder")
    }
    record |= {name: run.mean.get(name) for name in METRIC_NAMES}
    record |= {f"delta_{name}": run.delta(name) for name in METRIC_NAMES}
    record |= {f"fp32_{name}": run.reference.get(name) for name in METRIC_NAMES}
    record |= {name: run.cost.get(name) for name in COSTS}
    record |= {
        "stages": "+".join(run.planned),
        "steps": run.total_steps,
        "choices": json.dumps(dict(run.choices), ensure_ascii=False) if run.choices else None,
        "folder": str(run.folder),
    }
    return record


def results_markdown(title: str, groups: Sequence[Group], floats: Sequence[Reference], runs: Sequence[Run]) -> str:
    """The table in GitHub's Markdown: float networks first, then by bits, the best of each bit-width bold.

    Below it: what failed, did not finish, or could not be read.
    """
    lines = [f"# {_inline(title)}", ""]
    if groups or floats:
        lines += [*_table(groups, floats), "", _LEGEND]
    else:
        lines.append("No run has finished.")
    for heading, items in problems(runs).items():
        lines += ["", f"## {heading}", "", *(f"- {item}" for item in items)]
    return "\n".join(lines) + "\n"


_LEGEND = (
    "Errors as mean ± standard deviation over seeds; lower is better, best of its bits in bold. Δ MAD: to the run's "
    "own FP32 stage. Seconds: of quantization, without evaluation. Stored: weights, scales and 8-bit layers as on "
    "disk. GBOPs: bit operations per frame. Paper: the convention of the PTQ4VM paper."
)


def problems(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Heading to Markdown lines about failed and unfinished runs and files that could not be read."""
    found = {
        "Failed": [
            f"`{run.name}`: {_inline(run.error or 'no error was noted')}" for run in runs if run.status == "failed"
        ],
        "Not finished": [f"`{run.name}` ({run.folder})" for run in runs if run.status == "running"],
        "Could not be read": [_inline(warning) for run in runs for warning in run.warnings],
    }
    return {heading: items for heading, items in found.items() if items}


def _table(groups: Sequence[Group], floats: Sequence[Reference]) -> list[str]:
    header = ["bits", "method", "seeds", *(METRIC_TITLES[name] for name in METRIC_NAMES), "Δ MAD"]
    header += ["steps", "seconds", "stored MB", "GBOPs", "GFLOPs (paper)", "MB (paper)"]
    rows = [header, [":--", ":--", *["--:"] * (len(header) - 2)]]
    for base in floats:
        label = "float network" if len(floats) == 1 else ", ".join(filter(None, (base.model, base.data)))
        metrics = [f"{base.metrics[name]:.2f}" for name in METRIC_NAMES]
        rows.append(["FP32", _inline(label), "", *metrics, "", "", "", *_costs(base.cost)])
    marks = best_marks(groups)
    for index, group in enumerate(groups):
        metrics = []
        for name in METRIC_NAMES:
            text = spread_text(group.metric(name))
            metrics.append(f"**{text}**" if index in marks[name] else text)
        delta, steps, seconds = group.delta("mad"), group.spread(_steps), group.spread(lambda run: run.seconds)
        costs = {name: value for name in COSTS if (value := group.cost(name)) is not None}
        rows.append(
            [
                group.bits,
                _inline(group.label),
                str(len(group.runs)),
                *metrics,
                signed(delta.mean) if delta else "",
                f"{steps.mean:.0f}" if steps else "",
                f"{seconds.mean:.0f}" if seconds else "",
                *_costs(costs),
            ]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _steps(run: Run) -> float | None:
    return run.total_steps


def _costs(cost: Mapping[str, float]) -> list[str]:
    scaled = (("stored_bytes", 1e6), ("bops", 1e9), ("paper_gflops", 1.0), ("paper_mb", 1.0))
    return [f"{cost[name] / unit:.2f}" if name in cost else "" for name, unit in scaled]


def spread_text(spread: Spread | None) -> str:
    """``15.75 ± 0.12``; without the deviation for a single value, empty for none."""
    if spread is None:
        return ""
    return f"{spread.mean:.2f} ± {spread.deviation:.2f}" if spread.n > 1 else f"{spread.mean:.2f}"


def signed(value: float) -> str:
    """``+0.12`` or ``−0.12``; never a negative zero."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _inline(text: str) -> str:
    """Text that cannot break out of a table's cell or begin Markdown of its own."""
    for sign in "\\|*_`<[":
        text = text.replace(sign, f"\\{sign}")
    return text
