"""Decoding, engines and encoding side by side: order, errors, stopping, memory, resuming."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy_media import COUNT, RATE, SIZE, BrightEngine, decode, encode, picture, sounds
from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.media.frames import Frame, Picture, Reader, Sound, StreamInfo
from ptq4vm.media.readers import open_input
from ptq4vm.media.writers import Writer
from ptq4vm.video.channels import BACKLOG, QUEUE
from ptq4vm.video.composing import Colour, composer
from ptq4vm.video.destinations import NOTE, WARM_UP, FolderDestination, choose_destination
from ptq4vm.video.loop import Busy, Latency, Outcome, matte_video
from ptq4vm.video.propagating import PropagatingEngine
from ptq4vm.video.refining import RefinedEngine
from ptq4vm.video.scenes import SceneCuts

ALPHA = composer("alpha", Colour((0, 0, 0)))
WAIT = 20  # seconds that a busy machine may need


class Endless(Reader):
    """Frames, counted as they are asked for; ``broken`` is the first that cannot be read."""

    def __init__(self, count: int = 10**9, broken: int = 10**9) -> None:
        self.info = StreamInfo(SIZE, RATE)
        self.handed, self._count, self._broken = 0, count, broken

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame | Sound]:
        for index in range(start, min(self._count, stop or 10**9)):
            if index == self._broken:
                raise DataError("in.mp4 broke")
            self.handed += 1
            yield Frame(index, picture(index % 8), index / RATE)


class Kept(Writer):
    """Keeps indices; waits for ``gate``; breaks at ``broken``."""

    def __init__(self, gate: threading.Event | None = None, broken: int = -1) -> None:
        self.indices: list[int] = []
        self._gate, self._broken = gate, broken

    def write(self, frame: Frame, picture: Picture) -> None:
        if self._gate is not None:
            assert self._gate.wait(WAIT)
        if frame.index == self._broken:
            raise SaveError("disk full")
        self.indices.append(frame.index)


def test_everything_in_order() -> None:
    reader, writer, engines = Endless(40), Kept(), [BrightEngine(), BrightEngine()]
    progress: list[int] = []
    outcome = matte_video(reader, engines, ALPHA, writer, on_frame=progress.append)
    assert outcome == Outcome(40, False, None)
    assert writer.indices == list(range(40)) and progress == list(range(1, 41))
    assert [engine.resets for engine in engines] == [1, 1]
    assert all(np.array_equal(engine.seen[9], picture(1)) for engine in engines)


class Prepared(BrightEngine):
    """Wants every frame prepared before its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[Picture] = []

    def prepare(self, frame: Picture) -> None:
        self.prepared.append(frame)

    def matte(self, frame: Picture) -> Any:
        assert any(frame is known for known in self.prepared), "the very array"
        return super().matte(frame)


def test_engines_prepare_frames_before_their_turn() -> None:
    engine = Prepared()
    outcome = matte_video(Endless(10), [RefinedEngine(PropagatingEngine(engine, 2), ())], ALPHA, Kept())
    assert outcome.error is None and outcome.seen == 10
    assert len(engine.prepared) == 10


class Slow(BrightEngine):
    """Takes a hundredth of a second for a frame."""

    def matte(self, frame: Picture) -> Any:
        time.sleep(0.01)
        return super().matte(frame)


def test_it_tells_which_step_was_busy() -> None:
    busy = matte_video(Endless(20), [Slow()], ALPHA, Kept()).busy
    assert list(busy) == ["decode", "network", "compose", "encode"]
    assert busy["network"] >= 0.2
    assert max(busy, key=busy.__getitem__) == "network"


def test_it_tells_meanwhile_which_step_limits() -> None:
    busy, told = Busy(), []
    assert busy.limiting({}) == ""
    matte_video(Endless(20), [Slow()], ALPHA, Kept(), busy=busy, on_frame=lambda done: told.append(busy.limiting({})))
    assert set(told[2:]) == {"network"}
    before = dict(busy.seconds)
    busy.seconds["encode"] += 3
    busy.seconds["compose"] += 2
    busy.seconds["network"] += 4
    assert busy.limiting(before) == "encode", "with composing it takes a thread for longer than the network"
    busy.seconds["decode"] += 6
    assert busy.limiting(before) == "decode"


def test_a_slow_writer_holds_the_others_back() -> None:
    gate = threading.Event()
    reader, writer, engine = Endless(200), Kept(gate), BrightEngine()
    running = threading.Thread(target=matte_video, args=(reader, [engine], ALPHA, writer))
    running.start()
    held = -1
    deadline = time.monotonic() + WAIT
    while reader.handed != held and time.monotonic() < deadline:
        held = reader.handed
        time.sleep(0.5)
    # one in each step's hands, besides those that wait
    assert len(engine.seen) <= QUEUE + 2 and reader.handed <= 2 * QUEUE + 4
    gate.set()
    running.join(WAIT)
    assert writer.indices == list(range(200))


class Gated(BrightEngine):
    """Takes its first frame for as long as it takes others to come; warmed up, it has seen one before."""

    def __init__(self, reader: Endless, count: int) -> None:
        super().__init__()
        self._reader, self._count = reader, count

    def matte(self, frame: Picture) -> Any:
        deadline = time.monotonic() + WAIT
        while len(self.seen) == 1 and self._reader.handed < self._count and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # the last frame handed over is on its way
        return super().matte(frame)


def test_what_is_late_is_left_out_and_the_newest_is_not() -> None:
    reader, writer = Endless(30), Kept()
    engine = Gated(reader, 30)
    outcome = matte_video(reader, [engine], ALPHA, writer, late=True)
    assert not engine.seen[0].any() and engine.resets == 2, "warmed up on black, then forgotten"
    assert writer.indices[-1] == 29 and writer.indices == sorted(writer.indices)
    assert outcome.seen == len(writer.indices) <= BACKLOG + 3 and outcome.dropped == 30 - outcome.seen
    assert 0 < outcome.latency.percentile(0.5) <= outcome.latency.percentile(0.95)


def test_percentiles_of_latency() -> None:
    latency = Latency()
    assert latency.percentile(0.95) == 0
    for milliseconds in range(1, 101):
        latency.add(milliseconds / 1000)
    assert (latency.percentile(0.5), latency.percentile(0.95), latency.percentile(1)) == (50, 95, 100)


def test_stopping_writes_what_was_matted() -> None:
    stop = threading.Event()
    writer = Kept()
    outcome = matte_video(
        Endless(), [BrightEngine()], ALPHA, writer, stop=stop, on_frame=lambda done: stop.set() if done == 7 else None
    )
    assert outcome == Outcome(7, True, None) and writer.indices == list(range(7))


def test_a_source_that_breaks_keeps_what_came_before() -> None:
    writer = Kept()
    outcome = matte_video(Endless(broken=5), [BrightEngine()], ALPHA, writer)
    assert writer.indices == list(range(5)) and outcome.seen == 5 and str(outcome.error) == "in.mp4 broke"


def test_a_writer_that_breaks_ends_everything() -> None:
    reader = Endless()
    with pytest.raises(SaveError, match="disk full"):
        matte_video(reader, [BrightEngine()], ALPHA, Kept(broken=4))
    assert reader.handed < 4 + 2 * QUEUE + 4


def test_a_cut_resets() -> None:
    class Scenes(Endless):
        def read(self, start: int = 0, stop: int | None = None) -> Iterator[Frame | Sound]:
            for index in range(9):
                image = picture(0) if index < 5 else 255 - picture(0)
                yield Frame(index, image, Fraction(index))

    engine = BrightEngine()
    matte_video(Scenes(), [engine], ALPHA, Kept(), cuts=SceneCuts())
    assert engine.resets == 2


def fill(source: Path, out: Path, engine: BrightEngine, stop_at: int | None = None, **options: object) -> Outcome:
    """Matte a file to ``out`` by a fake engine, stopping after a frame."""
    reader = open_input(str(source))
    stop = threading.Event()
    target = choose_destination(out, reader, source=source, **options)  # type: ignore[arg-type]
    return target.fill(
        reader,
        reader.info.size,
        lambda writer, start: matte_video(
            reader,
            [engine],
            ALPHA,
            writer,
            start=start,
            stop=stop,
            on_frame=lambda done: stop.set() if done == stop_at else None,
        ),
    )


def test_video_to_video_with_sound(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", sound="aac")
    assert fill(source, tmp_path / "out.mp4", BrightEngine()).seen == COUNT
    frames, times = decode(tmp_path / "out.mp4")
    assert times == decode(source)[1] and sounds(tmp_path / "out.mp4") == sounds(source)
    for index, frame in enumerate(frames):
        assert np.abs(frame[..., 0].astype(int) - 255 * (picture(index)[..., 0] > 127)).mean() < 8


def test_stopped_video_can_be_played(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", count=30, sound="aac")
    assert fill(source, tmp_path / "out.mp4", BrightEngine(), stop_at=12).stopped
    assert len(decode(tmp_path / "out.mp4")[0]) == 12
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out.mp4"}


@pytest.mark.parametrize("named", [False, True])
def test_folder_is_gone_on_with(tmp_path: Path, named: bool, caplog: pytest.LogCaptureFixture) -> None:
    count = WARM_UP + 12
    source = tmp_path / ("frames" if named else "in.mp4")
    if named:
        source.mkdir()
        for index in range(count):
            Image.fromarray(picture(index % 9)).save(source / f"shot{index}.png")
    else:
        encode(source, count=count)
    out = tmp_path / "out"
    fill(source, out, BrightEngine(), stop_at=WARM_UP + 5, identity={"a": "1"})
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert len(written) == WARM_UP + 5 and (("shot3.png" if named else "000003.png") in written)
    engine = BrightEngine()
    fill(source, out, engine, identity={"a": "1"})
    assert len(engine.seen) == WARM_UP + 7, "the frames that were missing, and those before them once more"
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert len(after) == count and written.items() <= after.items()
    assert "going on from there" in caplog.text
    fill(source, out, BrightEngine(), identity={"a": "1"})
    with pytest.raises(ConfigError, match="made with another a"):
        fill(source, out, BrightEngine(), identity={"a": "2"})
    fill(source, out, BrightEngine(), stop_at=3, identity={"a": "2"}, overwrite=True)
    assert len(list(out.glob("*.png"))) == (count if named else 3)


def test_frames_whose_picture_has_changed_are_made_again(tmp_path: Path) -> None:
    source, out = tmp_path / "frames", tmp_path / "out"
    source.mkdir()
    for index in range(6):
        Image.fromarray(picture(index)).save(source / f"{index}.png")
    fill(source, out, BrightEngine())
    before = {path.name: path.read_bytes() for path in out.glob("*.png")}
    Image.fromarray(picture(9)).save(source / "4.png")
    engine = BrightEngine()
    fill(source, out, engine)
    assert len(engine.seen) == 6, "the network sees those before it once more"
    after = {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert [name for name in sorted(before) if after[name] != before[name]] == ["4.png"]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        FolderDestination(tmp_path / "out", (), {}, False)
    FolderDestination(tmp_path / "out", (), {}, True)
    (tmp_path / "out" / NOTE).write_text("[1")
    with pytest.raises(ConfigError, match="is damaged"):
        FolderDestination(tmp_path / "out", (), {}, False)
    with pytest.raises(ConfigError, match="is a file"):
        FolderDestination(tmp_path / "out" / "mine.txt", (), {}, True)
    with pytest.raises(SaveError, match="cannot be written"):
        FolderDestination(tmp_path / "out" / "mine.txt" / "deeper", (), {}, False)


def test_engines_may_write_to_the_pictures_of_a_folder(tmp_path: Path) -> None:
    """PyTorch warns of memory that it may not write to."""
    Image.new("RGB", (8, 6), "red").save(tmp_path / "0.png")
    (frame,) = open_input(str(tmp_path)).read()
    assert isinstance(frame, Frame) and frame.image.shape == (6, 8, 3) and frame.image.flags.writeable
