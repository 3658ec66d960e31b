"""Time per frame, memory and error of several engines, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import MattingEngine, automatic_ratio
from ptq4vm.engines.memory import peak_memory
from ptq4vm.engines.registry import engine_class
from ptq4vm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ptq4vm.types import Clip, ClipSource

Frames = Sequence[NDArray[np.uint8]]

INTEGERS = ("u8", "i8")
BASELINE = "PyTorch FP32"
"""Name of the contender that the others are compared with."""
RATIOS = {(720, 1280): 0.375, (1080, 1920): 0.25, (2160, 3840): 0.125}
"""Downsample ratios that RVM's authors recommend for these ``(H, W)``."""


def usual_ratio(size: tuple[int, int]) -> float:
    """What RVM's authors recommend for ``(H, W)``, or what brings the longer side to 512."""
    return RATIOS.get(size) or automatic_ratio(size)


@dataclass(frozen=True, order=True)
class Setting:
    """A frame's ``(H, W)``, and the fraction of it at which the network runs."""

    size: tuple[int, int]
    ratio: float

    def __str__(self) -> str:
        """``1280x720``, or ``1280x720@0.5`` where the ratio is not the usual one."""
        text = f"{self.size[1]}x{self.size[0]}"
        return text if self.ratio == usual_ratio(self.size) else f"{text}@{self.ratio:g}"


@dataclass(frozen=True)
class TimingPlan:
    """How engines take turns.

    Attributes:
        rounds: Turns of every engine.
        burst: Frames of a turn that are timed.
        warm_up: Frames of every engine before the first round.
        pause: Seconds before a turn, in which the threads of the engine before it stop waiting busily for work.

    Raises:
        ConfigError: A number is out of range.
    """

    rounds: int = 20
    burst: int = 5
    warm_up: int = 5
    pause: float = 0.02

    def __post_init__(self) -> None:
        for name in ("rounds", "burst"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is none: use 1 or more")
        if self.warm_up < 0 or self.pause < 0:
            raise ConfigError(f"warm_up={self.warm_up} and pause={self.pause:g}: use 0 or more")

    def turns(self, engines: int) -> Iterator[int]:
        """Give the engines' numbers in turn: forth in one round and back in the next, so that what drifts meets all
        alike."""
        for turn in range(self.rounds):
            yield from range(engines) if turn % 2 == 0 else reversed(range(engines))


@dataclass(frozen=True)
class Spread:
    """How long frames took: the median, and the two times between which nine in ten lie.

    Attributes:
        median: Median time of a frame, milliseconds.
        low: 5th percentile of the times, milliseconds.
        high: 95th percentile of the times, milliseconds.
        count: Frames that were timed.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Spread:
        """Summarise the times of some frames, in milliseconds. Raises :class:`DataError` where there are none."""
        if not milliseconds:
            raise DataError("there is no time to take the median of")
        low, median, high = np.percentile(milliseconds, (5, 50, 95))
        return cls(float(median), float(low), float(high), len(milliseconds))


@dataclass(frozen=True)
class Contender:
    """An engine with a network or file that is to be benchmarked.

    Attributes:
        name: What tables call it.
        open: Opens the engine; can be pickled, to be called in a process of its own.
        modules: Names of modules that its engine needs and ``open`` would import; see
            :func:`ptq4vm.engines.memory.peak_memory`.
        files: Exported files that it runs; none for PyTorch.
        metadata: What these files say about themselves.
    """

    name: str
    open: Callable[[], MattingEngine]
    modules: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def file_contenders(
    file: Path,
    name: str,
    threads: int | None,
    precisions: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> list[Contender]:
    """Make the contenders of an exported file: one, or one for each precision where its engine can be told one.

    Args:
        file: The exported file.
        name: What tables call the file.
        threads: CPU threads; as many as the engine likes for ``None``.
        precisions: In which types floats are to be computed (``f32``, ``bf16``), where the engine can be told.
        metadata: What the file says about itself.

    Raises:
        ConfigError: No engine opens such files.
    """
    engine = engine_class(file)
    shared = ((engine.package,), engine.files(file), dict(metadata or {}))
    opens = partial(engine.open, file, threads)
    if not engine.precisions:
        return [Contender(f"{engine.title} {name}", opens, *shared)]
    return [
        Contender(f"{engine.title} {name} {precision}", partial(opens, precision=precision), *shared)
        for precision in precisions
    ]


@dataclass(frozen=True)
class Measurement:
    """What was measured of a contender.

    Attributes:
        contender: What was measured.
        time: How long a frame took.
        memory: Bytes by which a process of its own grew; ``None``: not measured.
        mad: Mean absolute difference to the clips' true alpha, times 1000; ``None`` without clips.
        integers: Convolutions that run on integers, and all there are, where the engine tells.
    """

    contender: Contender
    time: Spread
    memory: int | None = None
    mad: float | None = None
    integers: tuple[int, int] | None = None

    @property
    def file_bytes(self) -> int | None:
        """Size of the exported files together, bytes; ``None`` where there are none."""
        return sum(file.stat().st_size for file in self.contender.files) if self.contender.files else None

    def times_faster(self, baseline: Measurement) -> float:
        """Ratio of the baseline's median time to this one's."""
        return baseline.time.median / self.time.median


def benchmark(
    contenders: Sequence[Contender],
    size: tuple[int, int],
    frames: Frames,
    plan: TimingPlan | None = None,
    *,
    clips: Sequence[ClipSource] = (),
    memory: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> list[Measurement]:
    """Measure contenders at one size: memory, each in a process of its own; time, in turns in this one; then MAD.

    Args:
        contenders: What to measure, at least one, in the order of the table.
        size: ``(H, W)`` of the frames, pixels.
        frames: Pictures of that size that are timed; see :func:`time_engines`.
        plan: How the engines take turns; the defaults of :class:`TimingPlan` when not given.
        clips: Clips with true alpha to measure MAD on; see :func:`mean_mad`.
        memory: Whether to measure memory.
        on_step: Called with what is measured, :func:`steps` times.

    Raises:
        PTQ4VMError: An engine cannot be opened or does not take the frames, or a clip is damaged.
    """
    step = on_step or (lambda what: None)
    peaks: list[int | None] = []
    for contender in contenders:
        peaks.append(peak_memory(contender.open, size, contender.modules) if memory else None)
        step("memory")
    engines = [contender.open() for contender in contenders]
    times = time_engines(engines, frames, plan, on_turn=lambda: step("time"))
    mads: list[float] | list[None] = [None] * len(engines)
    if clips:
        mads = mean_mad(engines, clips, size, on_clip=lambda: step("MAD"))
    return [
        Measurement(contender, Spread.of(found), peak, mad, _integers(engine))
        for contender, engine, found, peak, mad in zip(contenders, engines, times, peaks, mads, strict=True)
    ]


def steps(contenders: int, plan: TimingPlan, clips: int) -> int:
    """How often :func:`benchmark` calls ``on_step``."""
    return contenders * (1 + 1 + plan.rounds + clips)


def _integers(engine: MattingEngine) -> tuple[int, int] | None:
    executed = engine.executed_types()
    if executed is None:
        return None
    counts = {kind: count for kind, count in executed.items() if kind[0] == "Convolution"}
    return sum(count for (_, used), count in counts.items() if used in INTEGERS), sum(counts.values())


def time_engines(
    engines: Sequence[MattingEngine],
    frames: Frames,
    plan: TimingPlan | None = None,
    *,
    on_turn: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[list[float]]:
    """Time :meth:`MattingEngine.matte`, uint8 frame to float matte, of engines that take turns.

    All are opened before, so that each sees the same state of the machine. A turn is a pause, one frame that is not
    timed (it brings weights and states back into the caches), and ``plan.burst`` frames that are.

    Args:
        engines: Each gets the same frames in the same order, over and over, with its own states.
        frames: ``(H, W, 3)`` uint8, consecutive frames of a video.
        plan: How the engines take turns; the defaults of :class:`TimingPlan` when not given.
        on_turn: Called after every turn, warming up included.
        clock: Gives the time now, in seconds from any beginning.
        sleep: Waits for a number of seconds.

    Returns:
        Milliseconds of every timed frame, for each engine in the order in which they ran.

    Raises:
        DataError: There are no frames.
    """
    plan = plan or TimingPlan()
    if not len(frames):
        raise DataError("there are no frames to time engines with")
    feeds = [cycle(frames) for _ in engines]
    for engine, feed in zip(engines, feeds, strict=True):
        engine.reset()
        for frame in islice(feed, plan.warm_up):
            engine.matte(frame)
        if on_turn is not None:
            on_turn()
    found: list[list[float]] = [[] for _ in engines]
    for index in plan.turns(len(engines)):
        sleep(plan.pause)
        engine, feed = engines[index], feeds[index]
        engine.matte(next(feed))
        for frame in islice(feed, plan.burst):
            began = clock()
            engine.matte(frame)
            found[index].append((clock() - began) * 1e3)
        if on_turn is not None:
            on_turn()
    return found


def images(clip: Clip) -> list[NDArray[np.uint8]]:
    """Frames of a clip as engines take them."""
    return list(clip.frames.permute(0, 2, 3, 1).contiguous().numpy())


def mean_mad(
    engines: Sequence[MattingEngine],
    clips: Sequence[ClipSource],
    size: tuple[int, int],
    on_clip: Callable[[], None] | None = None,
) -> list[float]:
    """MAD of each engine: over all frames of a clip with states carried, then over clips, as ``evaluate`` has it.

    Args:
        engines: What to measure; each is reset before every clip.
        clips: Clips with their true alpha, scaled to ``size`` where they have another.
        size: ``(H, W)`` at which the engines run, pixels.
        on_clip: Called after every clip of every engine.

    Returns:
        ``1000 * mean |alpha - truth|`` for each engine.

    Raises:
        DataError: There are no clips, or one is damaged.
    """
    import torch  # late, with what needs it: exported files are timed without

    from ptq4vm.metrics.functional import mean_absolute_difference
    from ptq4vm.ops.clips import fitted

    if not clips:
        raise DataError("there are no clips to measure MAD on")
    found = np.zeros(len(engines))
    for source in clips:
        clip = fitted(source.read(), size)
        pictures = images(clip)
        for index, engine in enumerate(engines):
            engine.reset()
            alpha = np.stack([engine.matte(picture).alpha for picture in pictures])
            predicted = torch.from_numpy(alpha)[:, None].clamp(0, 1)
            found[index] += mean_absolute_difference(predicted, clip.alpha).item()
            if on_clip is not None:
                on_clip()
    return [float(value) for value in found / len(clips)]
