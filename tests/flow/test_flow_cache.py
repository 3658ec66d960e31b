from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flow_jobs import CLIPS, LIMIT_MIB, SEGMENTS, Counting, Source, ask, job, make_source
from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.flow.analytic import AnalyticFlow
from ptq4vm.flow.base import TwoWayFlow
from ptq4vm.flow.cache import FlowCache
from ptq4vm.flow.entries import NAMES, cache_size, evict, read_entry, write_entry


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


def test_both_directions_with_their_masks(tmp_path: Path) -> None:
    frames = make_source().frames
    smooth = torch.stack([torch.roll(frames[0], shift, -1) for shift in range(6)])  # moves right by a pixel
    flow = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(5, 2, 12, 16)

    class Known(Counting):
        def estimate(self, frames: Tensor) -> TwoWayFlow:
            forward = flow.clone()
            forward[:, :, :3] = 9  # does not lead back: hidden in both
            return TwoWayFlow(-flow, forward)

    clip = FlowCache(tmp_path / "cache", Known(tmp_path / "calls"), segment=2).open(Source(smooth))
    for _ in range(2):  # computed, then loaded
        back, forth = clip.get(1, 6), clip.get_forward(1, 6)
        assert torch.equal(back.backward, -flow[1:]) and torch.equal(forth.forward[:, :, 3:], flow[1:, :, 3:])
        assert not back.visible[:, :, :3].any() and not forth.visible[:, :, :3].any()
        assert not back.visible[..., 0].any() and back.visible[:, :, 4:, 1:].all(), (
            "the first column comes from outside"
        )
        assert not forth.visible[..., -1].any() and forth.visible[:, :, 4:, :-1].all(), "the last one leaves"
    names = dict(zip(NAMES, load_file(sorted((tmp_path / "cache").glob("*.safetensors"))[0]).items(), strict=True))
    assert {str(tensor.dtype) for _, tensor in names.values()} == {"torch.float16", "torch.uint8"}


@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage", "flip", "swap", "missing", "old format"])
def test_damaged_entries_are_computed_again(tmp_path: Path, estimator: Counting, damage: str) -> None:
    root, source = tmp_path / "cache", make_source()
    cache = FlowCache(root, estimator)
    expected = cache.get(source)
    entry = only_entry(root)
    content = entry.read_bytes()
    tensors = load_file(entry)
    if damage == "flip":  # still a valid file, of other numbers
        content = content.replace(last := tensors["backward"][-1].numpy().tobytes(), last[:-1] + bytes([last[-1] ^ 1]))
    if damage == "swap":  # a whole entry, of another clip
        cache.get(make_source(seed=1))
        (other,) = set(root.glob("*.safetensors")) - {entry}
        content = other.read_bytes()
    if damage == "missing":
        save_file({"backward": tensors["backward"]}, entry)
        content = entry.read_bytes()
    if damage == "old format":
        old = {"format": "2", "key": entry.stem, "checksum": "0" * 64}
        save_file({"flow": tensors["backward"], "visible": tensors["visible"]}, entry, old)
        content = entry.read_bytes()
    kept = {"truncate": len(content) // 2, "empty": 0}.get(damage, len(content))
    entry.write_bytes(b"garbage" * 50 if damage == "garbage" else content[:kept])
    calls = estimator.calls
    again = FlowCache(root, estimator).get(source)
    assert estimator.calls == calls + 1
    assert torch.equal(again.backward, expected.backward) and torch.equal(again.visible, expected.visible)
    FlowCache(root, estimator).get(source)
    assert estimator.calls == calls + 1, "the mended entry should be used"


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_row_is_not_given(tmp_path: Path, estimator: Counting, name: str) -> None:
    root, source = tmp_path / "cache", make_source()
    cache = FlowCache(root, estimator)
    cache.get(source)
    entry = only_entry(root)
    tensors = load_file(entry)
    tensors[name][3].view(torch.uint8).flatten()[5] ^= 1
    with safe_open(entry, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, entry, metadata)
    assert read_entry(entry, slice(0, 3)) is not None, "the others are as they were"
    assert read_entry(entry, slice(3, 4)) is None
    assert read_entry(entry, slice(0, 5), [other for other in NAMES if other != name]) is not None
    cache.open(source).ensure()
    assert estimator.calls == 2, "filling ahead looks at all"
    assert read_entry(entry, slice(0, 5)) is not None


def test_an_entry_evicted_while_it_is_opened_is_none(
    tmp_path: Path, estimator: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """safetensors reads the header of an open file, then torch maps the same name: between the two it may be gone."""
    FlowCache(tmp_path, estimator).get(make_source())
    entry = only_entry(tmp_path)
    map_file = torch.UntypedStorage.from_file

    def evicted_first(*args: object, **kwargs: object) -> torch.UntypedStorage:
        entry.unlink()
        return map_file(*args, **kwargs)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", evicted_first)
    assert read_entry(entry, slice(0, 1)) is None
    assert not entry.exists() and not caplog.records, "that is no damage"


def test_entries_are_mapped_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    rows = torch.arange(64, dtype=torch.float16).view(64, 1, 1, 1).expand(64, 2, 256, 512)
    write_entry(path, dict(zip(NAMES, (rows, rows[:, :1].to(torch.uint8), rows, rows[:, :1] > 0), strict=True)))
    assert path.stat().st_size > 64 * 2**20
    before = resident()
    found = read_entry(path, slice(10, 12))
    assert found is not None and found[0][:, 0, 0, 0].tolist() == [10, 11]
    assert resident() - before < 16 * 2**20, "two of 64 rows"
    path.unlink()
    path.write_bytes(b"")  # what is being read stays as it was
    assert found[0][1].eq(11).all() and found[2][0].eq(10).all()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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


def test_eight_jobs_at_once(tmp_path: Path) -> None:
    """Processes that share nothing but the folder, asking for the same entries at the same moment."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(8), context.Queue()
    jobs = [context.Process(target=job, args=(tmp_path, number, barrier, answers)) for number in range(8)]
    for each in jobs:
        each.start()
    given = []
    while len(given) < 16:
        with contextlib.suppress(queue.Empty):
            given.append(answers.get(timeout=1))
        assert not any(each.exitcode for each in jobs)
    for each in jobs:
        each.join(60)
    assert [each.exitcode for each in jobs] == [0] * 8
    expected = ask(FlowCache(tmp_path / "alone", Counting(tmp_path / "alone calls"), segment=8))
    assert all(answer == expected for _, answer, _ in given), "everybody gets the same bits"
    for name in ("whole", "small"):
        left = {path.name for path in (tmp_path / name).iterdir()}
        assert all(path.endswith(".safetensors") and not path.startswith(".") for path in left), "nothing else is left"
        calls = Counting(tmp_path / f"{name} calls").calls
        assert calls == sum(misses for where, _, misses in given if where == name)
        if name == "whole":
            assert calls == len(left) == CLIPS * SEGMENTS, "each is computed once"
        else:  # entries were removed while others used them
            assert calls > CLIPS * SEGMENTS and cache_size(tmp_path / name)[1] <= LIMIT_MIB * 2**20


def test_remains_of_a_killed_writer_go(tmp_path: Path, estimator: Counting) -> None:
    cache = FlowCache(tmp_path, estimator)
    key = cache.key(make_source().frames)
    for name in (f".{key}-abc.safetensors", f"{key}.lock"):
        (tmp_path / name).write_bytes(b"half of it")
    cache.get(make_source())
    assert [path.name for path in tmp_path.iterdir() if path.name != "calls"] == [f"{key}.safetensors"]


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
    source = make_source()
    source.read_flow = lambda start, stop: None  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="the frame before only; use flow=dis"):
        cache.open(source).get_forward()
    assert not (tmp_path / "cache").exists()


def last_used(path: Path) -> float:
    return max(path.stat().st_mtime, path.stat().st_atime)


def test_the_folder_stays_below_its_limit(tmp_path: Path, estimator: Counting) -> None:
    root = tmp_path / "cache"
    size = None
    for seed in range(6):
        cache = FlowCache(root, estimator, limit_mib=(3.5 * size if size else 1e9) / 2**20)
        cache.get(make_source(seed=seed))
        size = size or cache_size(root)[1]
        for age, path in enumerate(sorted(root.glob("*.safetensors"), key=last_used, reverse=True)):
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
