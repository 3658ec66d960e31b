"""A report's figures as pictures, for documents: errors by method and bits, convergence, losses of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ptq4vm.io import atomic_path
from ptq4vm.report.curves import Curve, read_curves
from ptq4vm.report.groups import Group, group_runs, references
from ptq4vm.runs.reading import Run

ERRORS, CONVERGENCE, LOSSES = "errors.png", "convergence.png", "losses.png"
_WHOLE_NETWORK = "/alpha"
_TRAINING = "loss/alpha"
_PLAIN = LogFormatter(labelOnlyBase=False)
_OTHERS = ("gac/", "loss/")  # stages that log a loss under the same name
_POINTS = 24  # of a loss, each the mean of as many steps: single ones jump by half


def write_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Draw what there is to draw; a figure without data is left out.

    Args:
        runs: The runs of one or several sweeps.
        folder: Gets ``errors.png`` (MAD of every group of seeds, by bits, on a logarithmic axis),
            ``convergence.png`` (error of the whole network over gradient steps, where runs have logged it) and
            ``losses.png`` (alpha's loss over the steps of training, where networks were trained).

    Returns:
        What was written.

    Raises:
        SaveError: A file cannot be written.
    """
    written = []
    groups = group_runs(runs)
    if groups:
        floats = [reference.metrics["mad"] for reference in references(runs) if "mad" in reference.metrics]
        written.append(_save(_errors(groups, floats), folder / ERRORS))
    logged = {run.folder: read_curves(run.folder)[0] for run in runs}
    curves = {run.name: found for run in runs if (found := _network_curve(logged[run.folder])) is not None}
    if curves:
        axis = "mean |alpha - FP32 alpha|, one calibration clip"
        written.append(_save(_over_steps(curves, axis), folder / CONVERGENCE))
    losses = {
        _named(group): found
        for group in groups
        if (found := _training_loss([logged[run.folder] for run in group.runs])) is not None
    }
    if losses:
        written.append(_save(_over_steps(losses, "loss of alpha, training samples"), folder / LOSSES))
    return written


def _errors(groups: Sequence[Group], floats: Sequence[float]) -> Figure:
    """Bars of MAD, one panel for each bit-width, all on one axis."""
    widths = list(dict.fromkeys(group.bits for group in groups))
    panels = {bits: [group for group in groups if group.bits == bits] for bits in widths}
    figure = Figure(figsize=(1.6 + 0.62 * len(groups) + 0.3 * len(panels), 4.2), layout="constrained")
    ratios = [len(members) for members in panels.values()]
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=ratios)[0]
    for axis, (bits, members) in zip(axes, panels.items(), strict=True):
        spreads = [group.metric("mad") for group in members]
        means = [spread.mean if spread else np.nan for spread in spreads]
        deviations = [spread.deviation if spread else 0.0 for spread in spreads]
        places = np.arange(len(members))
        axis.bar(places, means, yerr=deviations, capsize=3, color="#4a7ebb", width=0.7)
        for place, mean, top in zip(places, means, np.add(means, deviations), strict=True):
            axis.annotate(f"{mean:.3g}", (place, top), (0, 4), textcoords="offset points", ha="center", fontsize=8)
        for value in floats:
            axis.axhline(value, color="#c0504d", linewidth=1, linestyle="--", label="FP32")
        axis.set_title(bits, fontsize=10)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(_PLAIN)
        axis.yaxis.set_minor_formatter(_PLAIN)
        labels = [_named(group) for group in members]
        axis.set_xticks(places, labels, rotation=40, ha="right", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("MAD x 1e3 (lower is better)")
    if floats:
        axes[-1].legend(*[part[:1] for part in axes[-1].get_legend_handles_labels()], frameon=False, fontsize=8)
    return figure


def _over_steps(curves: dict[str, Curve], measured: str) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        axis.plot(curve.steps, curve.values, marker=".", markersize=3, linewidth=1, label=name)
    axis.set_xscale("symlog", linthresh=10)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_PLAIN)
    axis.yaxis.set_minor_formatter(_PLAIN)
    axis.set_xlabel("gradient steps")
    axis.set_ylabel(measured)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return figure


def _named(group: Group) -> str:
    return group.label or group.runs[0].method


def _training_loss(logged: Sequence[Mapping[str, Curve]]) -> Curve | None:
    """The loss of alpha over the steps of training, the mean of runs; ``None`` where nothing was trained."""
    found = [curves[_TRAINING] for curves in logged if _TRAINING in curves]
    if not found:
        return None
    length = min(len(curve.steps) for curve in found)
    values = np.mean([curve.values[:length] for curve in found], axis=0)
    return Curve(found[0].steps[:length], tuple(values.tolist())).thinned(_POINTS)


def _network_curve(logged: Mapping[str, Curve]) -> Curve | None:
    """The whole network's error over steps, where a reconstruction has logged it."""
    names = [name for name in logged if name.endswith(_WHOLE_NETWORK) and not name.startswith(_OTHERS)]
    return logged[names[0]] if names else None


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png", dpi=130)
    return path
