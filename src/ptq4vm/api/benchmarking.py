"""Time, memory and error of engines and exported files, measured side by side.

An exported file is measured without PyTorch, which is imported where it is one of those that are compared or where
there are clips to measure errors on.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ptq4vm.api.opening import FLOAT, open_engine
from ptq4vm.engines.base import MattingEngine
from ptq4vm.engines.benchmark import (
    BASELINE,
    Contender,
    Frames,
    Measurement,
    Setting,
    TimingPlan,
    file_contenders,
    images,
    steps,
    usual_ratio,
)
from ptq4vm.engines.benchmark import benchmark as measure
from ptq4vm.engines.registry import ENGINES
from ptq4vm.engines.registry import open_engine as open_file
from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.limits import check_threads
from ptq4vm.media.portrait import draw_portrait
from ptq4vm.report.benchmark import Results, write_benchmark
from ptq4vm.system.allocator import keep_freed_memory
from ptq4vm.system.cpu import usable_cpus
from ptq4vm.types import ClipSource
from ptq4vm.version import __version__

Names = str | Path | Sequence[str | Path] | None
"""One name, several, or none; a text may have several between commas."""
OnStep = Callable[[str, int], None]
"""Called with what is measured, such as ``512x288 time``, and with how many steps there are in all."""

DEFAULT = (288, 512)
TIMED = 24
"""Frames of a clip that are gone through over and over."""


@dataclass(frozen=True)
class File:
    """An exported file that is to be benchmarked.

    Attributes:
        path: Where the file is.
        size: ``(H, W)`` that it takes, pixels; ``None`` for any.
        ratio: Downsample ratio that is fixed in it, in (0, 1].
        metadata: What it says about itself.
    """

    path: Path
    size: tuple[int, int] | None
    ratio: float
    metadata: Mapping[str, str] = field(default_factory=dict)

    def takes(self, setting: Setting) -> bool:
        """Whether the file was made for frames of this size and this downsample ratio."""
        return self.size in (None, setting.size) and abs(self.ratio - setting.ratio) < 1e-6


class _Asked(NamedTuple):
    """What is to be compared, checked."""

    files: list[str]
    checkpoints: list[str]
    precisions: list[str]
    threads: int
    model: str
    weights: str | Path | None


def benchmark(
    files: Names = None,
    *,
    checkpoint: Names = FLOAT,
    precision: Names = "f32",
    sizes: Sequence[Setting | str] = (),
    clips: str | Path | None = None,
    threads: int | None = None,
    rounds: int = 20,
    burst: int = 5,
    warm_up: int = 5,
    memory: bool = True,
    out: str | Path | None = None,
    model: str = "rvm_mobilenetv3",
    weights: str | Path | None = None,
    on_step: OnStep | None = None,
) -> Results:
    """Measure engines and exported files side by side: milliseconds a frame, memory and, with clips, MAD.

    Args:
        files: Exported files: ``.onnx``, ``.xml``, ``.tflite``, ``.bits``.
        checkpoint: What PyTorch runs: ``fp32``, run folders (fake-quantized), or both; ``None`` for nothing.
        precision: Type in which OpenVINO computes what is float: ``f32``, ``bf16``, or both.
        sizes: Each a :class:`Setting`, or a text such as ``512x288`` or ``1280x720@0.375`` (with the downsample ratio
            where it is not the usual one). The sizes of the files by default, else 512x288.
        clips: A folder of clips with ``com/`` and ``pha/``: their frames are timed, and MAD is measured on them.
            Frames of a drawn portrait are timed by default.
        threads: CPU threads of every engine; by default all that this process may use.
        rounds: Turns of every engine, at least 1.
        burst: Frames that are timed in a turn, at least 1.
        warm_up: Frames of every engine before the first turn, at least 0.
        memory: Whether to measure memory, each engine in a process of its own.
        out: A folder for ``benchmark.json`` and ``benchmark.md``.
        model: Name of the float network in ``conf/model``.
        weights: A file with its weights; the usual places when not given.
        on_step: Called with what is measured, and how many such steps there are.

    Returns:
        Of every size, what was measured: PyTorch first, then the files in the order in which they were given.

    Raises:
        ConfigError: A value is unknown or out of range, or a file was made for a size that is not asked for.
        CheckpointError: A run folder is missing or damaged.
        DataError: A clip is damaged.
        ExportError: A file is missing, damaged or not one of ours.
        SaveError: ``out`` cannot be written.
        WeightsError: The float network's weights cannot be found.
    """
    asked = _checked(_parts(files), _parts(checkpoint), _parts(precision), threads, model, weights)
    wanted = [parse_setting(size) if isinstance(size, str) else size for size in sizes]
    sources = _clips(clips)
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"out={out} is a file, and a folder is needed: choose another out")
    opened = [_read_file(Path(file)) for file in asked.files]
    settings = _settings(wanted, opened)
    groups = {setting: _contenders(asked, setting, opened) for setting in settings}
    plan = TimingPlan(rounds, burst, warm_up)
    total = sum(steps(len(group), plan, len(sources)) for group in groups.values())
    results: dict[Setting, list[Measurement]] = {}
    for setting, group in groups.items():
        results[setting] = measure(
            group,
            setting.size,
            _timed_frames(sources, setting.size),
            plan,
            clips=sources,
            memory=memory,
            on_step=None if on_step is None else partial(_named, on_step, setting, total),
        )
    if out is not None:
        write_benchmark(Path(out), _facts(asked.threads, plan), None if clips is None else str(clips), results)
    return results


def _checked(
    files: list[str],
    checkpoints: list[str],
    precisions: list[str],
    threads: int | None,
    model: str,
    weights: str | Path | None,
) -> _Asked:
    """Refuse what cannot be compared. Raises :class:`ConfigError`."""
    check_threads(threads)
    for precision in precisions:
        if precision not in ("f32", "bf16"):
            raise ConfigError(f"precision={precision} is unknown: use f32, bf16 or f32,bf16")
    if not files and not checkpoints:
        raise ConfigError("there is nothing to benchmark: give files=, or checkpoint=fp32")
    for name, parts in (("files", files), ("checkpoint", checkpoints), ("precision", precisions)):
        twice = [part for part in parts if parts.count(part) > 1]
        if twice:
            raise ConfigError(f"{name}={','.join(parts)} has {twice[0]} twice: leave one out")
    return _Asked(files, checkpoints, precisions, threads or usable_cpus(), model, weights)


def parse_setting(text: str) -> Setting:
    """Read a text such as ``512x288`` or ``1280x720@0.375`` as a setting. Raises :class:`ConfigError` for another."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?:@(\d*\.?\d+))?", text)
    if found is None:
        raise ConfigError(f"sizes={text}: write WIDTHxHEIGHT, such as 512x288, or 1280x720@0.375 with a ratio")
    size = (int(found[2]), int(found[1]))
    ratio = float(found[3]) if found[3] else usual_ratio(size)
    FrameShape(*size, downsample_ratio=ratio)  # refuses what is too small
    return Setting(size, ratio)


def _clips(folder: str | Path | None) -> Sequence[ClipSource]:
    if folder is None:
        return ()
    if not Path(folder).is_dir():
        raise ConfigError(f"clips={folder} is no folder: give one with [subset/]<clip>/com and .../pha")
    from ptq4vm.data.datasets.folder import find_clips

    return find_clips(Path(folder))


def _read_file(path: Path) -> File:
    """What a file was exported for. Raises :class:`ExportError`, :class:`ConfigError`."""
    engine = open_file(path, threads=1)
    return File(path, engine.frame_size, engine.downsample_ratio, engine.metadata)


def _settings(wanted: Sequence[Setting], files: Sequence[File]) -> list[Setting]:
    """What was asked for, or what the files were made for. Raises :class:`ConfigError` for a file that fits none."""
    found = wanted or sorted({Setting(file.size, file.ratio) for file in files if file.size is not None})
    settings = list(dict.fromkeys(found)) or [Setting(DEFAULT, next((f.ratio for f in files), 1.0))]
    known = ",".join(str(setting) for setting in settings)
    for file in files:
        if not any(file.takes(setting) for setting in settings):
            own = str(Setting(file.size, file.ratio)) if file.size is not None else f"any size at ratio {file.ratio:g}"
            raise ConfigError(f"{file.path} is for {own}, which is not among sizes={known}: add it")
    return settings


def _contenders(asked: _Asked, setting: Setting, files: Sequence[File]) -> list[Contender]:
    """What runs at a size: PyTorch first, then the files in the order in which they were given."""
    found = []
    for checkpoint in sorted(asked.checkpoints, key=lambda name: name != FLOAT):
        opens = partial(_open_pytorch, checkpoint, asked.model, asked.weights, setting.ratio, asked.threads)
        name = BASELINE if checkpoint == FLOAT else f"PyTorch {checkpoint} ({_bits(checkpoint)}, fake-quantized)"
        found.append(Contender(name, opens, ("torch",)))
    names = [file.path.name for file in files]
    for file in files:
        if not file.takes(setting):
            continue
        name = file.path.name if names.count(file.path.name) == 1 else str(file.path)
        found += file_contenders(file.path, name, asked.threads, asked.precisions, file.metadata)
    return found


def _bits(checkpoint: str) -> str:
    """``W8A8``. Raises :class:`CheckpointError` for what is no run folder."""
    from ptq4vm.quant.checkpoint import read_info

    if not Path(checkpoint).is_dir():
        raise CheckpointError(f"checkpoint={checkpoint} is no folder: give fp32, or run folders of `ptq4vm quantize`")
    return read_info(checkpoint).label


def _open_pytorch(checkpoint: str, model: str, weights: str | Path | None, ratio: float, threads: int) -> MattingEngine:
    """As ``ptq4vm matte`` runs it, in this process or in one of its own."""
    keep_freed_memory()
    return open_engine(
        checkpoint, engine="pytorch", model=model, weights=weights, downsample_ratio=ratio, threads=threads
    )


def _timed_frames(clips: Sequence[ClipSource], size: tuple[int, int]) -> Frames:
    """Frames of the first clip, or of a drawn one."""
    if not clips:
        return list(draw_portrait(size, TIMED)[0])
    from ptq4vm.ops.clips import fitted

    return images(fitted(clips[0].read(0, min(TIMED, clips[0].num_frames)), size))


def _facts(threads: int, plan: TimingPlan) -> dict[str, Any]:
    """What the figures depend on."""
    packages = {}
    for package in ("torch", *dict.fromkeys(kind.package for kind in ENGINES.values())):
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[package] = importlib.metadata.version(package)
    return {
        "ptq4vm": __version__,
        **packages,
        "machine": _processor(),
        "threads": threads,
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


def _parts(names: Names) -> list[str]:
    """Each name; those of a text are between commas."""
    if names is None:
        return []
    several = names.split(",") if isinstance(names, str) else [names] if isinstance(names, Path) else names
    return [part.strip() for part in map(str, several) if part.strip()]


def _named(on_step: OnStep, setting: Setting, total: int, what: str) -> None:
    on_step(f"{setting} {what}", total)
