"""Runs that differ in their seed alone as one row, the float network they are compared with, and who is best."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ptq4vm.metrics import METRIC_NAMES
from ptq4vm.runs.reading import Run

_SHOWN = ("model", "preset", "data", "flow")


@dataclass(frozen=True)
class SeedSpread:
    """Mean and sample standard deviation of ``n`` values; the deviation of a single value is 0."""

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> SeedSpread | None:
        """The spread of the values that are known; ``None`` when there is none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0, len(known))


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: Method and whatever else tells it from the groups of the same bits.
        runs: At least one; all measured.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def bits(self) -> str:
        """The bits of weights and activations, ``W4A8``."""
        return self.runs[0].bits

    @property
    def arena(self) -> tuple[str, str, str]:
        """Groups of the same arena compete: same network, same data, same bits."""
        return self.runs[0].model, self.runs[0].data, self.bits

    def spread(self, value: Callable[[Run], float | None]) -> SeedSpread | None:
        """Mean and standard deviation of something over the seeds."""
        return SeedSpread.of(value(run) for run in self.runs)

    def metric(self, name: str) -> SeedSpread | None:
        """Mean and deviation of one metric of the final network."""
        return self.spread(lambda run: run.mean.get(name))

    def delta(self, name: str) -> SeedSpread | None:
        """Mean and deviation of a metric's difference to each run's own float stage."""
        return self.spread(lambda run: run.delta(name))

    def cost(self, name: str) -> float | None:
        """One entry of :attr:`Run.cost`; the mean, where seeds differ."""
        found = self.spread(lambda run: run.cost.get(name))
        return found.mean if found else None


@dataclass(frozen=True)
class Reference:
    """The float network that runs on the same data are compared with.

    Attributes:
        model: Name of the network, a choice of ``conf/model``.
        data: Name of the data that it was measured on.
        metrics: Metric to its mean over clips (and over the runs, should they differ).
        cost: Cost of a run at 32 bits, or as much as the quantized runs tell of it.
    """

    model: str
    data: str
    metrics: Mapping[str, float]
    cost: Mapping[str, float]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put seeds together: wide bits first, best MAD first. Float runs are left out, being :func:`references`.

    A run with the very same choices and seed as another one is no second sample: it gets a group of its own.
    """
    buckets: dict[tuple[object, ...], list[Run]] = {}
    for run in _quantized(runs):
        copies = 0
        while any(_same_sample(run, other) for other in buckets.get((*_identity(run), copies), ())):
            copies += 1
        buckets.setdefault((*_identity(run), copies), []).append(run)
    members = [tuple(sorted(found, key=lambda run: run.seed or 0)) for found in buckets.values()]
    labels = _labels([found[0] for found in members])
    return _sorted(Group(label, found) for label, found in zip(labels, members, strict=True))


def single_runs(runs: Sequence[Run]) -> list[Group]:
    """Every quantized run for itself, labelled and ordered as :func:`group_runs` does, then by seed."""
    return [Group(group.label, (run,)) for group in group_runs(runs) for run in group.runs]


def references(runs: Sequence[Run]) -> list[Reference]:
    """The float networks, one for each network and data set, in the order in which they are met."""
    met: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.measured and (run.reference or run.bits == "FP32"):
            met.setdefault((run.model, run.data), []).append(run)
    bases = []
    for (model, data), members in met.items():
        floats = [run for run in members if run.bits == "FP32"]
        values = [run.reference or run.mean for run in members]
        known = {name: [value[name] for value in values if name in value] for name in METRIC_NAMES}
        metrics = {name: statistics.fmean(found) for name, found in known.items() if found}  # old files lack new ones
        cost = floats[0].cost if floats else _float_cost(members)
        bases.append(Reference(model, data, metrics, cost))
    return bases


def _float_cost(runs: Iterable[Run]) -> dict[str, float]:
    """What quantized runs tell of the float network: the paper divides its figures by the mean of 32/W and 32/A."""
    cost: dict[str, float] = {}
    for run in runs:
        if "gmacs" in run.cost:
            cost |= {"gmacs": run.cost["gmacs"], "paper_gflops": run.cost["gmacs"]}
        if "paper_mb" in run.cost and run.weight_bits and run.activation_bits:
            cost["paper_mb"] = run.cost["paper_mb"] * (32 / run.weight_bits + 32 / run.activation_bits) / 2
        if cost:
            break
    return cost


def best_marks(groups: Sequence[Group]) -> dict[str, frozenset[int]]:
    """Find the groups that are best at their bit-width.

    Returns:
        Metric to the indices of the groups with the lowest mean among those of the same network, data and bits. A
        group without a rival is not marked.
    """
    arenas: dict[tuple[str, str, str], list[int]] = {}
    for index, group in enumerate(groups):
        arenas.setdefault(group.arena, []).append(index)
    marks = {}
    for name in METRIC_NAMES:
        best: set[int] = set()
        for indices in arenas.values():
            values = {i: spread.mean for i in indices if (spread := groups[i].metric(name))}
            if len(values) > 1:
                best.update(i for i, value in values.items() if value == min(values.values()))
        marks[name] = frozenset(best)
    return marks


def _quantized(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.measured and run.bits != "FP32"]


def _identity(run: Run) -> tuple[object, ...]:
    """Everything that was chosen but the seed."""
    choices = tuple(sorted(run.choices.items()))
    return run.model, run.method, run.planned, run.bits, run.preset, run.data, run.flow, choices


def _same_sample(run: Run, other: Run) -> bool:
    return run.seed is None or run.seed == other.seed


def _sorted(groups: Iterable[Group]) -> list[Group]:
    def order(group: Group) -> tuple[int, int, float]:
        first, error = group.runs[0], group.metric("mad")
        return -(first.weight_bits or 0), -(first.activation_bits or 0), error.mean if error else 0.0

    return sorted(groups, key=order)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Method, and every other choice that is not the same in all runs; what is still alike gets stages or folder."""
    fields = [name for name in _SHOWN if len({getattr(run, name) for run in runs} - {""}) > 1]
    keys = dict.fromkeys(key for run in runs for key in run.choices)
    varied = [key for key in keys if len({run.choices.get(key) for run in runs}) > 1]
    last = [key.rsplit(".", 1)[-1] for key in varied]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(varied, last, strict=True)}
    labels = []
    for run in runs:
        parts = [f"{name}={getattr(run, name)}" for name in fields if getattr(run, name)]
        parts += [f"{short[key]}={run.choices[key]}" for key in varied if key in run.choices]
        labels.append(", ".join([run.method or run.name, *parts]))
    labels = _told_apart(labels, [" + ".join(run.planned) for run in runs], labels)
    kinds = [f"{run.bits} {label}" for run, label in zip(runs, labels, strict=True)]
    return _told_apart(labels, [run.folder.name for run in runs], kinds)


def _told_apart(labels: Sequence[str], extras: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """Labels with their extra behind, for all of a kind whose extras are not all the same."""
    by_kind: dict[str, set[str]] = {}
    for kind, extra in zip(kinds, extras, strict=True):
        by_kind.setdefault(kind, set()).add(extra)
    return [
        f"{label} ({extra})" if extra and len(by_kind[kind]) > 1 else label
        for label, extra, kind in zip(labels, extras, kinds, strict=True)
    ]
