"""One HTML page about many runs that opens from disk without a network, with ``results.csv`` and ``results.md``."""

from __future__ import annotations

import datetime
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ptq4vm.errors import ConfigError
from ptq4vm.io import write_text
from ptq4vm.metrics import METRIC_NAMES, METRICS
from ptq4vm.report import views
from ptq4vm.report.curves import read_curves
from ptq4vm.report.exports import results_csv, results_markdown
from ptq4vm.report.figures import write_figures
from ptq4vm.report.groups import Group, group_runs, references, single_runs
from ptq4vm.report.images import Gallery
from ptq4vm.runs.reading import Run, Status, load_runs

log = logging.getLogger(__name__)

PAGE, CSV, MARKDOWN = "index.html", "results.csv", "results.md"
_MARK = "ptq4vm report</title>"
"""Text that tells a page of ours from others."""
_CURVE_BUDGET = 150_000  # points in the page; more runs get coarser curves


def write_report(paths: Sequence[Path | str], out: Path | str | None = None, title: str | None = None) -> Path:
    """Gather the runs below some folders into one page.

    Args:
        paths: Run folders, or folders with run folders somewhere below (a multirun); at least one.
        out: Gets ``index.html``, ``results.csv``, ``results.md`` and figures as pictures; ``report`` in the first path
            when not given.
        title: Heading of the page; the names of the folders when not given.

    Returns:
        ``index.html``. It is one file: pictures, styles and scripts are inside, and it asks no network for anything.

    Raises:
        DataError: A path is no folder, or there is no run below any of them. A single file that cannot be read is
            named in a warning, on the page too, and the rest goes on.
        ConfigError: No path, or plotly is not installed, or ``out`` holds a page that is not ours.
        SaveError: A file cannot be written.
    """
    if not paths:
        raise ConfigError("there is nothing to report on: give at least one folder")
    plotly = _plotly()
    runs = load_runs(paths)
    folder = Path(out) if out is not None else Path(paths[0]) / "report"
    if (folder / PAGE).exists() and _MARK not in (folder / PAGE).read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"{folder / PAGE} is no report of ours: choose another out")
    heading = title or ", ".join(dict.fromkeys(Path(path).resolve().name for path in paths))
    write_text(folder / CSV, results_csv(runs))
    write_text(folder / MARKDOWN, results_markdown(heading, group_runs(runs), references(runs), runs))
    write_text(folder / PAGE, render(runs, heading, plotly))
    write_figures(runs, folder)
    return folder / PAGE


def render(runs: Sequence[Run], title: str, plotly: str) -> str:
    """The HTML of the page, complete in itself.

    Args:
        runs: The runs to report on, at least one.
        title: Heading of the page.
        plotly: Source text of plotly.js.
    """
    groups, singles, floats = group_runs(runs), single_runs(runs), references(runs)
    shown = [group.runs[0] for group in singles]
    first = {run.folder for run in shown}
    runs = shown + [run for run in runs if run.folder not in first]
    titles = _titles(runs, singles)
    anchors = {run.folder: f"run-{index}" for index, run in enumerate(runs)}
    gallery = Gallery()
    curves, unreadable = _curves(runs, titles)
    seeded = any(len(group.runs) > 1 for group in groups)
    tables = [views.results_table("Mean over seeds", groups, floats, anchors, True)] if seeded else []
    tables.append(views.results_table("Every run", singles, floats, anchors, False))
    metric_titles = {name: METRICS[name].title for name in METRIC_NAMES}
    data = {
        "metrics": metric_titles,
        "scatter": views.scatter_data(groups, floats),
        "curves": curves,
        "heat": views.heat_data(groups),
        "frames": _frames(runs, titles, gallery),
        "images": gallery.uris,
    }
    for warning in (*unreadable, *gallery.warnings):
        log.warning("%s", warning)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            versions=sorted({run.version for run in runs if run.version}),
            written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            summary=_summary(runs, groups),
            runs=runs,
            titles=[titles[run.folder] for run in runs],
            failed=[run for run in runs if run.status == "failed"],
            running=[run for run in runs if run.status == "running"],
            warnings=[warning for run in runs for warning in run.warnings] + unreadable + gallery.warnings,
            tables=tables,
            metric_names=METRIC_NAMES,
            metric_titles=metric_titles,
            stage_columns=views.STAGE_COLUMNS,
            stage_rows=views.stage_rows(groups),
            left_out=gallery.left_out,
            views=views,
            data=data,
            plotly=Markup(plotly),
            style=_asset("page.css"),
            scripts=[_asset("page.js"), _asset("figures.js")],
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ptq4vm", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False, "separators": (",", ":")}
    return environment


def _asset(name: str) -> Markup:
    """A style or script of ours, to be put into the page as it is."""
    return Markup(resources.files("ptq4vm.report").joinpath(name).read_text(encoding="utf-8"))


def _plotly() -> str:
    """Source of plotly.js.

    Raises:
        ConfigError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError('a report needs plotly for its figures: pip install "ptq4vm[report]"') from error
    return str(get_plotlyjs())


def _titles(runs: Sequence[Run], singles: Sequence[Group]) -> dict[Path, str]:
    """Names of the runs on the page, by folder: bits, method, seed where there are several; else the run's name."""
    seeds = {run.seed for run in runs}
    titles = {run.folder: run.name for run in runs}
    for group in singles:
        run = group.runs[0]
        seed = f"seed {run.seed}" if len(seeds) > 1 and run.seed is not None else ""
        titles[run.folder] = " · ".join(filter(None, (run.bits, group.label, seed)))
    return titles


def _summary(runs: Sequence[Run], groups: Sequence[Group]) -> list[str]:
    """Counts for the heading."""
    status = Counter(run.status for run in runs)
    words: dict[Status, str] = {
        "finished": "finished",
        "failed": "failed",
        "running": "not finished",
        "broken": "not readable",
    }
    counts = [
        (len({group.runs[0].method for group in groups}), "method"),
        (len({group.bits for group in groups}), "bit-width"),
        (len({run.seed for group in groups for run in group.runs}), "seed"),
    ]
    return [
        f"{len(runs)} run{'s' * (len(runs) != 1)}: "
        + ", ".join(f"{status[key]} {word}" for key, word in words.items() if status[key]),
        *(f"{count} {word}{'s' * (count != 1)}" for count, word in counts if count),
    ]


def _curves(runs: Sequence[Run], titles: Mapping[Path, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Curves of every run that logged some, thinned to what a page should hold, and what could not be read."""
    warnings: list[str] = []
    read = []
    for run in runs:
        curves, unreadable = read_curves(run.folder)
        warnings += unreadable
        if curves:
            read.append((titles[run.folder], curves))
    limit = max(20, min(120, _CURVE_BUDGET // max(1, sum(len(curves) for _, curves in read))))
    found = [
        {
            "run": name,
            "series": {
                series: [thin.steps, [float(f"{value:.4g}") for value in thin.values]]
                for series, thin in ((series, curve.thinned(limit)) for series, curve in curves.items())
            },
        }
        for name, curves in read
    ]
    return found, warnings


def _frames(runs: Sequence[Run], titles: Mapping[Path, str], gallery: Gallery) -> list[dict[str, Any]]:
    """Pictures of every clip of every run that has some; the clips of a run in turn, so that a budget is shared."""
    return [
        {
            "run": titles[run.folder],
            "bits": run.bits,
            "seed": None if run.seed is None else str(run.seed),
            "clip": clip,
            "mad": run.clips.get(clip, {}).get("mad"),
            "images": images,
        }
        for run in runs
        if run.measured
        for clip, images in gallery.clips(run).items()
    ]
