"""``ptq4vm benchmark``: time per frame, memory and error of engines and files, measured side by side."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ptq4vm.cli.app import one_line
from ptq4vm.cli.engines import load_engines
from ptq4vm.cli.values import parse_values
from ptq4vm.data.datasets.folder import find_clips
from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.benchmark import (
    BASELINE,
    Contender,
    Measurement,
    Plan,
    Setting,
    benchmark,
    file_contenders,
    images,
    steps,
    usual_ratio,
)
from ptq4vm.errors import CheckpointError, ConfigError, PTQ4VMError
from ptq4vm.export.trace import FrameShape
from ptq4vm.export.verify import moving_portrait, open_engine
from ptq4vm.ops.clips import fitted
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.report.benchmark import Results, benchmark_table, write_benchmark
from ptq4vm.system.allocator import keep_freed_memory
from ptq4vm.types import ClipSource
from ptq4vm.version import __version__

USAGE = """usage: ptq4vm benchmark [files=A.onnx,B.xml] [KEY=VALUE...]

  files            exported files, separated by commas
  checkpoint=fp32  what PyTorch runs: fp32, run folders (fake-quantized), or both: fp32,RUN_DIR; null for nothing
  precision=f32    of what OpenVINO computes in float: f32, bf16, or both: f32,bf16
  sizes            512x288,1280x720@0.375: width x height, and the downsample ratio where it is not the usual one
                   (default: the sizes of the files, else 512x288)
  clips            folder of clips with com/ and pha/: their frames are timed, and MAD is measured on them
  threads          CPU threads of every engine (default: all that this process may use)
  rounds=20        turns of every engine
  burst=5          frames that are timed in a turn
  warm_up=5        frames of every engine before the first turn
  memory=true      measure memory, each engine in a process of its own
  out              folder for benchmark.json and benchmark.md
  model=rvm_mobilenetv3, weights=null   the float network, and a file with its weights
"""

FLOAT = "fp32"
DEFAULT = (288, 512)
TIMED = 24
"""Frames of a clip that are gone through over and over."""


@dataclass(frozen=True)
class BenchmarkOptions:
    """Values of the command; see ``USAGE``."""

    files: str | None = None
    checkpoint: str | None = FLOAT
    precision: str = "f32"
    sizes: str | None = None
    clips: str | None = None
    threads: int | None = None
    rounds: int = 20
    burst: int = 5
    warm_up: int = 5
    memory: bool = True
    out: str | None = None
    model: str = "rvm_mobilenetv3"
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads={self.threads}: use 1 or more")
        for precision in _parts(self.precision):
            if precision not in ("f32", "bf16"):
                raise ConfigError(f"precision={precision} is unknown: use f32, bf16 or f32,bf16")
        if not _parts(self.files) and not _parts(self.checkpoint):
            raise ConfigError("there is nothing to benchmark: give files=, or checkpoint=fp32")
        for name in ("files", "checkpoint", "precision"):
            parts = _parts(getattr(self, name))
            twice = [part for part in parts if parts.count(part) > 1]
            if twice:
                raise ConfigError(f"{name}={getattr(self, name)} has {twice[0]} twice: leave one out")

    @property
    def cpu_threads(self) -> int:
        """Threads of every engine."""
        return self.threads or usable_cpus()

    @property
    def plan(self) -> Plan:
        """How engines take turns."""
        return Plan(self.rounds, self.burst, self.warm_up)


@dataclass(frozen=True)
class File:
    """An exported file: its size (``None``: any), ratio and metadata."""

    path: Path
    size: tuple[int, int] | None
    ratio: float
    metadata: Mapping[str, str] = field(default_factory=dict)

    def takes(self, setting: Setting) -> bool:
        """Whether it was made for that."""
        return self.size in (None, setting.size) and abs(self.ratio - setting.ratio) < 1e-6


def main(arguments: Sequence[str]) -> int:
    """Measure and print tables; 1 after an error."""
    if {"-h", "--help", "help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    try:
        keep_freed_memory()
        options = parse_values(BenchmarkOptions, arguments, missing="PATH")
        results = run(options, Console(stderr=True))
        if options.out is not None:
            write_benchmark(Path(options.out), facts(options), options.clips, results)
    except PTQ4VMError as error:
        sys.stderr.write(f"ptq4vm benchmark: {one_line(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nptq4vm benchmark: interrupted\n")
        return 130
    console = Console()
    for setting, rows in results.items():
        console.print(benchmark_table(setting, rows, options.clips))
    if options.out is not None:
        console.print(f"written to {options.out}", soft_wrap=True)
    return 0


def run(options: BenchmarkOptions, console: Console) -> Results:
    """Measure every size. Raises :class:`PTQ4VMError`."""
    asked = [parse_setting(text) for text in _parts(options.sizes)]
    if options.clips is not None and not Path(options.clips).is_dir():
        raise ConfigError(f"clips={options.clips} is no folder: give one with [subset/]<clip>/com and .../pha")
    clips = find_clips(Path(options.clips)) if options.clips is not None else ()
    if options.out is not None and Path(options.out).exists() and not Path(options.out).is_dir():
        raise ConfigError(f"out={options.out} is a file, and a folder is needed: choose another out")
    files = [read_file(Path(text)) for text in _parts(options.files)]
    found = asked or sorted({Setting(file.size, file.ratio) for file in files if file.size is not None})
    settings = list(dict.fromkeys(found)) or [Setting(DEFAULT, next((f.ratio for f in files), 1.0))]
    known = ",".join(str(setting) for setting in settings)
    for file in files:
        if not any(file.takes(setting) for setting in settings):
            own = str(Setting(file.size, file.ratio)) if file.size is not None else f"any size at ratio {file.ratio:g}"
            raise ConfigError(f"{file.path} is for {own}, which is not among sizes={known}: add it")
    groups = {setting: contenders(options, setting, files) for setting in settings}
    results: dict[Setting, list[Measurement]] = {}
    total = sum(steps(len(group), options.plan, len(clips)) for group in groups.values())
    with _progress(console, total) as advance:
        for setting, group in groups.items():
            results[setting] = benchmark(
                group,
                setting.size,
                timed_frames(clips, setting.size),
                options.plan,
                clips=clips,
                memory=options.memory,
                on_step=partial(advance, str(setting)),
            )
    return results


def parse_setting(text: str) -> Setting:
    """``512x288`` or ``1280x720@0.375``. Raises :class:`ConfigError`."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?:@(\d*\.?\d+))?", text)
    if found is None:
        raise ConfigError(f"sizes={text}: write WIDTHxHEIGHT, such as 512x288, or 1280x720@0.375 with a ratio")
    size = (int(found[2]), int(found[1]))
    ratio = float(found[3]) if found[3] else usual_ratio(size)
    FrameShape(*size, downsample_ratio=ratio)  # refuses what is too small
    return Setting(size, ratio)


def read_file(path: Path) -> File:
    """What a file was exported for. Raises :class:`ExportError`, :class:`ConfigError`."""
    engine = open_engine(path, 1)
    return File(path, engine.frame_size, engine.downsample_ratio, engine.metadata)


def contenders(options: BenchmarkOptions, setting: Setting, files: Sequence[File]) -> list[Contender]:
    """What runs at a size: PyTorch first, then the files in the order in which they were given."""
    found, threads = [], options.cpu_threads
    for checkpoint in sorted(_parts(options.checkpoint), key=lambda name: name != FLOAT):
        opens = partial(open_pytorch, checkpoint, options.model, options.weights, setting.ratio, threads)
        name = BASELINE if checkpoint == FLOAT else f"PyTorch {checkpoint} ({_bits(checkpoint)}, fake-quantized)"
        found.append(Contender(name, opens, ("torch",)))
    names = [file.path.name for file in files]
    for file in files:
        if not file.takes(setting):
            continue
        name = file.path.name if names.count(file.path.name) == 1 else str(file.path)
        found += file_contenders(file.path, name, threads, _parts(options.precision), file.metadata)
    return found


def _bits(checkpoint: str) -> str:
    """``W8A8``. Raises :class:`CheckpointError` for what is no run folder."""
    if not Path(checkpoint).is_dir():
        raise CheckpointError(f"checkpoint={checkpoint} is no folder: give fp32, or run folders of `ptq4vm quantize`")
    spec = read_info(checkpoint).spec
    return f"W{spec.weight.bits}A{spec.activation.bits}"


def open_pytorch(checkpoint: str, model: str, weights: str | None, ratio: float, threads: int) -> MattingEngine:
    """As ``ptq4vm matte`` runs it. The threads are those of all of PyTorch."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    return load_engines(checkpoint, "pytorch", model, weights, ratio).engines[0]


def timed_frames(clips: Sequence[ClipSource], size: tuple[int, int]) -> list[Any]:
    """Frames of the first clip, or of a drawn one."""
    if not clips:
        return images(moving_portrait(size, TIMED))
    return images(fitted(clips[0].read(0, min(TIMED, clips[0].num_frames)), size))


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(options: BenchmarkOptions) -> dict[str, Any]:
    """What the figures depend on."""
    packages = {}
    for package in ("torch", "onnxruntime", "openvino"):
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[package] = importlib.metadata.version(package)
    plan = options.plan
    return {
        "ptq4vm": __version__,
        **packages,
        "machine": _processor(),
        "threads": options.cpu_threads,
        "rounds": plan.rounds,
        "burst": plan.burst,
    }


def _processor() -> str:
    """The processor's name where the system tells it."""
    named = Path("/proc/cpuinfo")
    if named.is_file():
        for line in named.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _parts(text: str | None) -> list[str]:
    """Values between commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[str, str], None]]:
    """A bar; called with the size and what is measured."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("benchmark", total=total)

        def advance(setting: str, what: str) -> None:
            progress.update(task, advance=1, description=f"{setting} {what}")

        yield advance
