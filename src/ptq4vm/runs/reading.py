"""Finds run folders and reads what they hold, so that a report can go on where one of them is damaged."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ptq4vm.errors import CheckpointError, DataError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.io import parse_json
from ptq4vm.runs.layout import LAYERS, LOGS, METRICS, RUN, SHEETS, STATE, TIMING
from ptq4vm.runs.metrics import read_metrics_json

log = logging.getLogger(__name__)

REFERENCE = "fp32"
"""Stage that a run is compared with."""

Status = Literal["finished", "running", "failed", "broken"]
_NOT_SEARCHED = {LOGS, SHEETS, STATE}
_TOLD_APART = {"bits", "method", "seed", "model", "preset", "data", "flow"}
_NO_CHOICE = {"run_dir", "overwrite", "logger", "num_workers", "stage_cache", "memory_mib", "flow_cache_mib"}


@dataclass(frozen=True)
class Run:
    """What one run folder says about itself. Everything but ``folder``, ``name`` and ``status`` may be missing.

    Attributes:
        folder: Path of the run folder.
        name: What tells it from its neighbours, ``bits=w4a4,method=brecq``.
        status: ``finished``; ``running`` (or killed); ``failed`` with an ``error``; ``broken`` when it says that it
            has finished and its metrics cannot be read.
        error: Why it failed, one line.
        command: Command line that started it.
        model: Choice of ``conf/model``; ``method``, ``preset``, ``data`` and ``flow`` are likewise choices of theirs.
        planned: Stages that its method runs, in order.
        weight_bits: Bits of most weights, 32 for float; ``activation_bits`` likewise.
        seed: Seed that decided everything random.
        choices: Every other choice and value that is known to have been given.
        mean: Metric to its mean over clips, of the final network. Empty when there is none.
        clips: Clip to its metrics, of the final network.
        stages: Stage to its mean metrics, in order, from ``fp32`` on.
        stage_seconds: Part of the run to its seconds; evaluations are called ``evaluate_<stage>``.
        total_seconds: Seconds of the whole run, evaluations included.
        steps: Stage to its gradient steps.
        cost: ``gmacs``, ``bops``, ``stored_bytes``, ``paper_gflops``, ``paper_mb`` as far as known.
        layers: Layer to the relative error of its output, noise power over signal power, in network order.
        layer_bits: Layer to the bits of its weights, 32 for float.
        machine: What the run ran on, in words.
        version: Version of ptq4vm that ran.
        warnings: One line for each of its files that could not be read.
        worst: Largest MAD that a clip has, as a multiple of the float network's on it; ``None`` where that is unknown.
    """

    folder: Path
    name: str
    status: Status
    error: str = ""
    command: str = ""
    model: str = ""
    method: str = ""
    preset: str = ""
    data: str = ""
    flow: str = ""
    planned: tuple[str, ...] = ()
    weight_bits: int | None = None
    activation_bits: int | None = None
    seed: int | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    mean: Mapping[str, float] = field(default_factory=dict)
    clips: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    total_seconds: float | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, float] = field(default_factory=dict)
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    machine: str = ""
    version: str = ""
    warnings: tuple[str, ...] = ()
    worst: float | None = None

    @property
    def measured(self) -> bool:
        """Whether it has a row in the tables."""
        return self.status == "finished" and bool(self.mean)

    @property
    def bits(self) -> str:
        """Bits of weights and activations as text, ``W4A8`` or ``FP32``; empty when unknown."""
        if list(self.stages) == [REFERENCE]:
            return "FP32"
        if self.weight_bits is None or self.activation_bits is None:
            return ""
        if min(self.weight_bits, self.activation_bits) >= 32:
            return "FP32"
        return f"W{self.weight_bits}A{self.activation_bits}"

    @property
    def reference(self) -> Mapping[str, float]:
        """Mean metrics of the run's own float stage; empty when it has none."""
        return self.stages.get(REFERENCE, {})

    @property
    def seconds(self) -> float | None:
        """Seconds of quantization; the total where the parts are not known.

        That is everything but evaluations, and but rounding to nearest where that is no more than a comparison.
        """
        parts = {name: value for name, value in self.stage_seconds.items() if not name.startswith("evaluate")}
        if parts.keys() - {"rtn", "calibrate"}:
            parts.pop("rtn", None)
        return sum(parts.values()) if parts else self.total_seconds

    @property
    def total_steps(self) -> int | None:
        """Gradient steps of all stages; ``None`` when unknown."""
        return sum(self.steps.values()) if self.steps else None

    def delta(self, metric: str) -> float | None:
        """How much worse than its own float stage a metric is; ``None`` when one of them is missing."""
        ours, base = self.mean.get(metric), self.reference.get(metric)
        return None if ours is None or base is None else ours - base


def load_runs(paths: Sequence[Path | str]) -> list[Run]:
    """Read every run folder below some folders, each once, in the order of their paths.

    A file that cannot be read is logged as a warning and kept in :attr:`Run.warnings`; the rest goes on.

    Raises:
        DataError: A path is no folder, or there is no run folder below any of them.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for root in map(Path, paths):
        if not root.is_dir():
            raise DataError(f"{root} is no folder: give run folders, or folders of a sweep, to report on")
        for folder in find_runs(root):
            found.setdefault(folder.resolve(), (root, folder))
    if not found:
        raise DataError(
            f"no run folder below {', '.join(map(str, paths))}: a run folder holds {RUN} or {METRICS}, "
            "which `ptq4vm quantize run_dir=DIR` writes"
        )
    runs = [read_run(folder, root) for root, folder in found.values()]
    for run in runs:
        for warning in run.warnings:
            log.warning("%s", warning)
    return runs


def find_runs(root: Path) -> Iterator[Path]:
    """Run folders at and below ``root``, sorted; what runs keep in their own logs, state and sheets is not searched."""
    for folder, folders, files in os.walk(root):
        is_run = RUN in files or METRICS in files
        if is_run:
            yield Path(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (is_run and name in _NOT_SEARCHED)
        )


def read_run(folder: Path, root: Path | None = None) -> Run:
    """Read one run folder; files that are missing leave fields empty, damaged ones a warning as well.

    Args:
        folder: The run folder.
        root: Folder that its name is relative to, where the run does not name itself.
    """
    warnings: list[str] = []
    card = _card(folder, warnings)
    values: dict[str, Any] = {}
    unreadable = False
    if (folder / METRICS).exists():
        try:
            report = read_metrics_json(folder / METRICS)
            values = {
                "mean": report.final.mean,
                "clips": report.final.clips,
                "stages": {name: result.mean for name, result in report.stages.items()},
                "worst": _worst(report.final, report.stages.get(REFERENCE)),
            }
        except CheckpointError as error:
            warnings.append(_one_line(error))
            unreadable = True
    timing = _read(folder / TIMING, warnings)
    layers = _read(folder / LAYERS, warnings)
    status = _status(card, bool(values), unreadable)
    if status == "finished" and not values:
        warnings.append(f"{folder} has finished without {METRICS}: were there no evaluation clips?")
    bits = _mapping(card.get("bits"))
    return Run(
        folder=folder,
        name=_text(card.get("name")) or _relative(folder, root),
        status=status,
        error=_text(card.get("error")),
        command=_text(card.get("command")),
        model=_text(card.get("model")),
        method=_text(card.get("method")),
        preset=_text(card.get("preset")),
        data=_text(card.get("data")),
        flow=_text(card.get("flow")),
        planned=tuple(map(str, _list(card.get("stages")))),
        weight_bits=_whole(bits.get("weight")),
        activation_bits=_whole(bits.get("activation")),
        seed=_whole(card.get("seed")),
        choices=_choices(card),
        **values,
        stage_seconds=_numbers(timing.get("stages")),
        total_seconds=_numbers(timing).get("total"),
        steps={key: int(value) for key, value in _numbers(card.get("steps")).items()},
        cost=_numbers(card.get("cost")),
        layers=_numbers(layers.get("layers")),
        layer_bits={key: int(value) for key, value in _numbers(layers.get("bits")).items()},
        machine=_text(card.get("machine")),
        version=_text(card.get("version")),
        warnings=tuple(warnings),
    )


def _worst(final: EvaluationResult, base: EvaluationResult | None) -> float | None:
    clips = {} if base is None else base.clips
    known = [(m["mad"], clips[clip]["mad"]) for clip, m in final.clips.items() if "mad" in m and clip in clips]
    return max((mad / before for mad, before in known if before > 0), default=None)


def _card(folder: Path, warnings: list[str]) -> dict[str, Any]:
    """``run.json``, or what Hydra noted where an older run has none."""
    card = _read(folder / RUN, warnings)
    return card if card else _from_hydra(folder, warnings)


def _from_hydra(folder: Path, warnings: list[str]) -> dict[str, Any]:
    """The fields of ``run.json`` that ``.hydra`` tells; empty without it."""
    hydra = _mapping(_read(folder / ".hydra" / "hydra.yaml", warnings).get("hydra"))
    config = _read(folder / ".hydra" / "config.yaml", warnings)
    if not hydra or not config:
        return {}
    chosen = _mapping(_mapping(hydra.get("runtime")).get("choices"))
    overrides = [str(o) for o in _list(_mapping(hydra.get("overrides")).get("task"))]
    job = _text(_mapping(hydra.get("job")).get("name")) or "quantize"
    command = shlex.join(["ptq4vm", job, *overrides])
    if job == "evaluate":  # its bits and method are defaults that say nothing of the checkpoint
        return {"command": command, "model": chosen.get("model"), "data": chosen.get("data")}
    bits = _mapping(config.get("bits"))
    return {
        "command": command,
        **{group: chosen.get(group) for group in ("model", "method", "preset", "data", "flow")},
        "bits": {"weight": bits.get("weight"), "activation": bits.get("activation")},
        "seed": config.get("seed"),
    }


def _choices(card: Mapping[str, Any]) -> dict[str, str]:
    """What ``choices`` names, and the overrides of the command: the former knows no single values."""
    try:
        words = shlex.split(_text(card.get("command")))
    except ValueError:  # a quotation without an end
        words = []
    given = dict(word.lstrip("+~").split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    found = {str(key): _text(value) for key, value in _mapping(card.get("choices")).items()} | given
    return {
        key: value
        for key, value in found.items()
        if key not in _TOLD_APART | _NO_CHOICE and not key.startswith("hydra") and value not in ("", "null")
    }


def _status(card: Mapping[str, Any], measured: bool, unreadable: bool) -> Status:
    told = card.get("status")
    if told in ("failed", "running"):
        return "failed" if told == "failed" else "running"
    if unreadable:
        return "broken"
    return "finished" if measured or told == "finished" else "running"


def _read(path: Path, warnings: list[str]) -> dict[str, Any]:
    """A JSON or YAML file with a mapping; empty when it is missing, and with a warning when it is damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        content = parse_json(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no JSON, or no UTF-8
        warnings.append(f"cannot read {path}: {_one_line(error)}")
        return {}
    if not isinstance(content, dict):
        warnings.append(f"cannot read {path}: it holds no mapping")
        return {}
    return content


def _relative(folder: Path, root: Path | None) -> str:
    if root is None or folder == root:
        return folder.resolve().name
    return folder.relative_to(root).as_posix()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value, default=str)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(value: Any) -> dict[str, float]:
    """The finite numbers of a mapping."""
    return {
        str(key): number
        for key, number in _mapping(value).items()
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    }
