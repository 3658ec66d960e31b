from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.base import TwoWayFlow
from ptq4vm.flow.cache import FlowCache, cache_size, evict
from ptq4vm.types import Clip


class Source:
    def __init__(self, frames: Tensor, name: str = "clip") -> None:
        self.frames = frames
        self.name = name
        self.reads = 0

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        return (self.frames.shape[2], self.frames.shape[3])

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        self.reads += 1
        return Clip(self.name, self.frames[start:stop], self.frames[start:stop, :1])


class Counting:
    """Flow that tells which frames it belongs to; writes a line to ``log`` for each call."""

    def __init__(self, log: Path, name: str = "counting") -> None:
        self.log = log
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def estimate(self, frames: Tensor) -> TwoWayFlow:
        with self.log.open("a") as file:
            file.write("x")
        x = frames[1:, :2].float() / 1000
        return TwoWayFlow(x, -x)

    @property
    def calls(self) -> int:
        return len(self.log.read_text()) if self.log.exists() else 0


class Slow(Counting):
    def estimate(self, frames: Tensor) -> TwoWayFlow:
        time.sleep(0.3)
        return super().estimate(frames)


def make_source(count: int = 6, seed: int = 0) -> Source:
    generator = torch.Generator().manual_seed(seed)
    return Source(torch.randint(0, 256, (count, 3, 12, 16), dtype=torch.uint8, generator=generator))


def only_entry(root: Path) -> Path:
    (entry,) = root.glob("*.safetensors")
    return entry


@pytest.fixture
def estimator(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "calls")


def test_hit_gives_the_same_bits_without_computing(tmp_path: Path, estimator: Counting) -> None:
    source, root = make_source(), tmp_path / "cache"
    computed = FlowCache(root, estimator).get(source)
    loaded = FlowCache(root, estimator).get(source)
    assert estimator.calls == 1
    assert torch.equal(computed.backward, loaded.backward) and torch.equal(computed.visible, loaded.visible)
    assert loaded.backward.dtype == torch.float32 and loaded.visible.dtype == torch.bool
    assert (loaded.backward - source.frames[1:, :2] / 1000).abs().max() < 1e-3


def test_key_is_content_not_name(tmp_path: Path, estimator: Counting) -> None:
    cache = FlowCache(tmp_path / "cache", estimator)
    source = make_source()
    cache.get(source)
    cache.get(Source(source.frames.clone(), "another name"))
    assert estimator.calls == 1
    changed = source.frames.clone()
    changed[3, 0, 5, 5] ^= 1
    cache.get(Source(changed))
    cache.get(Source(source.frames.reshape(6, 3, 16, 12)))
    FlowCache(tmp_path / "cache", Counting(estimator.log, "other settings")).get(source)
    FlowCache(tmp_path / "cache", estimator, alpha2=1.0).get(source)
    assert estimator.calls == 5


@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage", "flip", "swap", "missing"])
def test_damaged_entries_are_computed_again(tmp_path: Path, estimator: Counting, damage: str) -> None:
    root, source = tmp_path / "cache", make_source()
    cache = FlowCache(root, estimator)
    expected = cache.get(source)
    entry = only_entry(root)
    content = entry.read_bytes()
    if damage == "flip":  # still a valid file, of other numbers
        content = content[:-1] + bytes([content[-1] ^ 1])
    if damage == "swap":  # a whole entry, of another clip
        cache.get(make_source(seed=1))
        (other,) = set(root.glob("*.safetensors")) - {entry}
        content = other.read_bytes()
    if damage == "missing":
        tensors = load_file(entry)
        save_file({"flow": tensors["flow"]}, entry)
        content = entry.read_bytes()
    kept = {"truncate": len(content) // 2, "empty": 0}.get(damage, len(content))
    entry.write_bytes(b"garbage" * 50 if damage == "garbage" else content[:kept])
    calls = estimator.calls
    again = FlowCache(root, estimator).get(source)
    assert estimator.calls == calls + 1
    assert torch.equal(again.backward, expected.backward) and torch.equal(again.visible, expected.visible)
    FlowCache(root, estimator).get(source)
    assert estimator.calls == calls + 1, "the mended entry should be used"


@pytest.mark.parametrize("segment", [1, 2, 3, 5, 32])
def test_segments_join_to_the_same_flow(tmp_path: Path, estimator: Counting, segment: int) -> None:
    source = make_source(count=11)
    whole = FlowCache(tmp_path / "whole", estimator).get(source)
    cache = FlowCache(tmp_path / "parts", estimator, segment=segment)
    for start in range(10):
        for stop in range(start + 2, 12):
            part = cache.get(source, start, stop)
            assert torch.equal(part.backward, whole.backward[start : stop - 1])
            assert torch.equal(part.visible, whole.visible[start : stop - 1])
    assert estimator.calls == 1 + -(-10 // segment)


def test_only_needed_segments_are_computed(tmp_path: Path, estimator: Counting) -> None:
    flow = FlowCache(tmp_path / "cache", estimator, segment=4).open(make_source(count=100))
    flow.ensure(8, 12)
    assert estimator.calls == 1
    flow.ensure(7, 10)
    assert estimator.calls == 2
    flow.get(4, 13)
    assert estimator.calls == 2


def test_an_open_clip_reads_its_frames_once(tmp_path: Path, estimator: Counting) -> None:
    source = make_source()
    flow = FlowCache(tmp_path / "cache", estimator).open(source)
    for start in range(4):
        flow.get(start, start + 2)
    assert source.reads == 1


def _get(root: Path, log: Path, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    FlowCache(root, Slow(log)).get(make_source(count=20))


def test_two_processes_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    log = tmp_path / "calls"
    workers = [context.Process(target=_get, args=(tmp_path / "cache", log, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.read_text() == "x"


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 6), (-1, 3), (0, 7), (4, 3)])
def test_ranges_outside_the_clip(tmp_path: Path, estimator: Counting, start: int, stop: int) -> None:
    with pytest.raises(DataError, match="clip has 6 frames"):
        FlowCache(tmp_path, estimator).get(make_source(), start, stop)


def test_settings_and_folders_that_cannot_be(tmp_path: Path, estimator: Counting) -> None:
    with pytest.raises(ConfigError, match="segment"):
        FlowCache(tmp_path, estimator, segment=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="file"):
        FlowCache(tmp_path / "file" / "cache", estimator).get(make_source())


def test_analytic_flow_passes_through(tmp_path: Path) -> None:
    cache = FlowCache(tmp_path / "cache", AnalyticFlow())
    assert cache.name == "analytic"
    with pytest.raises(ConfigError, match="does not know its exact flow"):
        cache.get(make_source())
    assert not (tmp_path / "cache").exists()


def test_the_folder_stays_below_its_limit(tmp_path: Path, estimator: Counting) -> None:
    root = tmp_path / "cache"
    size = None
    for seed in range(6):
        cache = FlowCache(root, estimator, limit_mib=(3.5 * size if size else 1e9) / 2**20)
        cache.get(make_source(seed=seed))
        size = size or cache_size(root)[1]
        for age, path in enumerate(sorted(root.glob("*.safetensors"), key=lambda p: p.stat().st_mtime, reverse=True)):
            os.utime(path, (time.time() - 100 - age, time.time() - 100 - age))
        if seed == 3:
            cache.get(make_source(seed=1))  # used again, so that 2 goes before it
    assert cache_size(root) == (3, 3 * size)
    calls = estimator.calls
    last = FlowCache(root, estimator, limit_mib=1e9)
    for seed in (1, 4, 5):
        last.get(make_source(seed=seed))
    assert estimator.calls == calls and (last.hits, last.misses) == (3, 0)
    last.get(make_source(seed=2))
    assert (last.hits, last.misses) == (3, 1)


def test_what_has_just_been_written_stays_whatever_the_limit(tmp_path: Path, estimator: Counting) -> None:
    cache = FlowCache(tmp_path / "cache", estimator, limit_mib=1e-6)
    expected = FlowCache(tmp_path / "other", estimator, segment=2).get(make_source())
    small = FlowCache(tmp_path / "cache", estimator, segment=2, limit_mib=1e-6)
    for _ in range(2):  # entries that were evicted are computed again
        assert torch.equal(small.open(make_source()).get().backward, expected.backward)
    assert cache_size(cache.root)[0] == 1
    assert evict(tmp_path / "nowhere", 0) == 0 and cache_size(tmp_path / "nowhere") == (0, 0)
    with pytest.raises(ConfigError, match="limit of the flow cache"):
        FlowCache(tmp_path, estimator, limit_mib=0)
