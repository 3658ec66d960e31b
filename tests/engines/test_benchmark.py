from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.benchmark import (
    BASELINE,
    Contender,
    Measurement,
    Setting,
    Spread,
    TimingPlan,
    benchmark,
    images,
    mean_mad,
    steps,
    time_engines,
    usual_ratio,
)
from ptq4vm.engines.memory import peak_memory
from ptq4vm.errors import ConfigError, DataError, ExportError
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.types import Clip

SIZE = (16, 24)
MIB = 1 << 20


class Clock:
    """Moves when an engine works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now


class Spy(MattingEngine):
    """Writes down what it is asked to do; a frame takes ``milliseconds``, alpha is brightness plus a memory."""

    def __init__(self, name: str, log: list[str], clock: Clock | None = None, milliseconds: float = 1.0) -> None:
        self.name, self.log, self.clock, self.milliseconds = name, log, clock, milliseconds
        self.seen = 0

    def reset(self) -> None:
        self.seen = 0
        self.log.append(f"{self.name} reset")

    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        self.log.append(f"{self.name}{int(frame[0, 0, 0])}")
        if self.clock is not None:
            self.clock.now += self.milliseconds / 1e3
        alpha = np.float32(frame[..., 0] / np.float32(255)) + np.float32(self.seen / 100)
        self.seen += 1
        return Matte(alpha, np.zeros((*alpha.shape, 3), np.float32))


def numbered(count: int) -> list[NDArray[np.uint8]]:
    return [np.full((*SIZE, 3), index, np.uint8) for index in range(count)]


def test_engines_take_turns_back_and_forth() -> None:
    log: list[str] = []
    clock = Clock()
    engines = [Spy("a", log, clock, 2.0), Spy("b", log, clock, 6.0)]
    turns: list[int] = []
    plan = TimingPlan(rounds=2, burst=2, warm_up=1, pause=0.5)
    found = time_engines(
        engines, numbered(4), plan, clock=clock, sleep=clock.slept.append, on_turn=lambda: turns.append(len(log))
    )
    # every turn: one frame that brings the caches back, and two that count; each engine sees 0 1 2 3 0 1 2
    first, second = ["a1", "a2", "a3", "b1", "b2", "b3"], ["b0", "b1", "b2", "a0", "a1", "a2"]
    assert log == ["a reset", "a0", "b reset", "b0", *first, *second]
    assert [pytest.approx(times) for times in found] == [[2.0] * 4, [6.0] * 4]
    assert clock.slept == [0.5] * 4 and turns == [2, 4, 7, 10, 13, 16]


def test_nothing_to_time() -> None:
    with pytest.raises(DataError, match="no frames"):
        time_engines([Spy("a", [])], [])
    with pytest.raises(DataError, match="no time"):
        Spread.of([])


@pytest.mark.parametrize("values", ({"rounds": 0}, {"burst": 0}, {"warm_up": -1}, {"pause": -1.0}))
def test_plans_out_of_range(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        TimingPlan(**values)  # type: ignore[arg-type]


def test_spread_leaves_out_what_is_rare() -> None:
    spread = Spread.of([float(value) for value in range(1, 100)] + [5000.0])
    assert spread == Spread(50.5, pytest.approx(5.95), pytest.approx(95.05), 100)
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 1)


def test_ratios_to_the_baseline() -> None:
    slow, fast = (Measurement(Contender(name, engine), Spread.of([ms])) for name, ms in ((BASELINE, 80.0), ("x", 20.0)))
    assert fast.times_faster(slow) == 4 and slow.times_faster(fast) == 0.25 and slow.file_bytes is None


def test_files_are_counted_together(tmp_path: Path) -> None:
    files = (tmp_path / "a.xml", tmp_path / "a.bin")
    for index, file in enumerate(files):
        file.write_bytes(bytes(10 + index))
    assert Measurement(Contender("x", engine, files=files), Spread.of([1.0])).file_bytes == 21


class Source:
    """A clip of constant frames whose truth is black."""

    def __init__(self, levels: list[int]) -> None:
        self.name, self.num_frames, self.size = "clip", len(levels), SIZE
        self.levels = levels

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        levels = torch.tensor(self.levels, dtype=torch.uint8).view(-1, 1, 1, 1)
        return Clip(self.name, levels.expand(-1, 3, *SIZE), torch.zeros(len(self.levels), 1, *SIZE, dtype=torch.uint8))


def test_mad_is_of_clips_with_states_of_their_own() -> None:
    log: list[str] = []
    counted: list[None] = []
    clips = [Source([51, 51]), Source([0, 0, 255])]
    found = mean_mad([Spy("a", log), Spy("b", log)], clips, SIZE, on_clip=lambda: counted.append(None))
    # a frame's memory is a hundredth for each one before it; what exceeds 1 is cut off
    expected = (np.mean([0.2, 0.21]) + np.mean([0.0, 0.01, 1.0])) / 2 * 1e3
    assert found == [pytest.approx(expected, rel=1e-6)] * 2 and len(counted) == 4
    assert log.count("a reset") == 2
    with pytest.raises(DataError, match="no clips"):
        mean_mad([], [], SIZE)


def engine() -> MattingEngine:
    return Spy("a", [])


def large(mebibytes: int) -> MattingEngine:
    """Needs so much while it is opened, and a tenth of it afterwards."""
    spike = np.ones(mebibytes * MIB, np.uint8)
    found = Spy("large", [])
    found.kept = spike[: len(spike) // 10].copy()  # type: ignore[attr-defined]
    return found


def broken() -> MattingEngine:
    raise ExportError("a.onnx is damaged: export again")


def test_everything_in_one_call() -> None:
    made: list[str] = []
    contenders = [Contender("one", engine), Contender("two", engine)]
    plan = TimingPlan(rounds=2, burst=3, warm_up=1, pause=0)
    portrait = moving_portrait(SIZE, 2)
    found = benchmark(contenders, SIZE, images(portrait), plan, clips=[Source([51])], memory=False, on_step=made.append)
    assert [row.contender.name for row in found] == ["one", "two"]
    assert [row.time.count for row in found] == [6, 6] and [row.mad for row in found] == [pytest.approx(200)] * 2
    assert [row.memory for row in found] == [None, None] and [row.integers for row in found] == [None, None]
    assert len(made) == steps(2, plan, 1) and set(made) == {"memory", "time", "MAD"}
    assert images(portrait)[0].shape == (*SIZE, 3)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells")
def test_memory_is_the_peak_of_a_process_of_its_own() -> None:
    opens: Callable[[], MattingEngine] = functools.partial(large, 200)
    found = peak_memory(opens, SIZE, ("json",))
    assert found is not None and 200 * MIB <= found < 260 * MIB
    with pytest.raises(ExportError, match="is damaged: export again"):
        peak_memory(broken, SIZE)


@pytest.mark.parametrize(
    ("setting", "text"),
    (
        (Setting((288, 512), 1.0), "512x288"),
        (Setting((720, 1280), 0.375), "1280x720"),
        (Setting((720, 1280), 0.5), "1280x720@0.5"),
        (Setting((1080, 1920), 0.25), "1920x1080"),
    ),
)
def test_settings_are_named_as_they_are_asked_for(setting: Setting, text: str) -> None:
    assert str(setting) == text


def test_usual_ratios() -> None:
    assert usual_ratio((144, 256)) == 1 and usual_ratio((768, 1024)) == 0.5
