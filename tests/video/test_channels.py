"""Queues between steps: how they end, and which frames of a live source they leave out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptq4vm.video.channels import BACKLOG, PATIENCE, Channel, LiveChannel

FRAME = 0.04  # seconds from one frame to the next


def test_channel_ends_on_either_side() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.put(1) and channel.put(2)
    channel.finish()
    assert list(channel.take()) == [1, 2]
    channel.abandon()
    assert not channel.put(3)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Live:
    """A source of a frame every 40 ms, before somebody whom one takes ``pace`` seconds; items are frames' times."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.channel: LiveChannel[float | str] = LiveChannel(lambda item: isinstance(item, float), self.clock)
        self._taking: Iterator[float | str] = self.channel.take()
        self._frames, self._free = 0, 0.0
        self.waits: list[float] = []  # seconds from a frame's coming to its being taken

    def run(self, seconds: float, pace: float) -> None:
        """Let time go on."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = self._frames * FRAME
            self._take(pace, self.clock.now)
            assert self.channel.put(self.clock.now)
            self._frames += 1
            self._take(pace, self.clock.now)

    def halt(self, seconds: float) -> None:
        """Take nothing for some time."""
        self._free = self.clock.now + seconds

    def _take(self, pace: float, until: float) -> None:
        while self._free <= until and self.channel.waiting():
            came = next(self._taking)
            assert isinstance(came, float)
            began = max(self._free, came)
            self.waits.append(began - came)
            self._free = began + pace


@given(st.lists(st.floats(0.01, (BACKLOG - 1) * FRAME), min_size=1, max_size=5))
def test_a_halt_loses_nothing(halts: list[float]) -> None:
    live = Live()
    for halt in halts:
        live.run(1.0, pace=0.02)
        live.halt(halt)
    live.run(1.0, pace=0.02)
    assert live.channel.dropped == 0 and live.waits[-1] == 0


def test_a_long_halt_keeps_the_newest() -> None:
    live = Live()
    live.run(0.4, pace=0.02)
    live.halt(0.4)
    live.run(1.0, pace=0.02)
    assert 0 < live.channel.dropped <= round(0.4 / FRAME) - BACKLOG + 1


@pytest.mark.parametrize("pace", [0.041, 0.05, 0.1, 0.3])
def test_who_cannot_keep_up_is_given_what_has_just_come(pace: float) -> None:
    live = Live()
    live.run(20.0, pace)
    early = len(live.waits)
    live.run(20.0, pace)
    assert max(live.waits[early:]) < 1.5 * FRAME, "none but the newest waits, but for a moment"
    seen = 20.0 / max(pace, FRAME)
    assert len(live.waits) - early == pytest.approx(seen, abs=2), "and nobody waits for a frame who could have one"


def test_who_keeps_up_again_is_trusted_again() -> None:
    live = Live()
    live.run(5.0, pace=0.1)
    live.run(2 * PATIENCE, pace=0.02)
    dropped = live.channel.dropped
    live.halt(0.12)
    live.run(1.0, pace=0.02)
    assert live.channel.dropped == dropped > 0


def test_sound_is_never_left_out() -> None:
    clock = Clock()
    channel: LiveChannel[float | str] = LiveChannel(lambda item: isinstance(item, float), clock)
    for frame in range(20):
        clock.now = frame * 0.1
        assert channel.put(f"sound {frame}") and channel.put(clock.now)
    channel.finish()
    taken = list(channel.take())
    assert [item for item in taken if isinstance(item, str)] == [f"sound {frame}" for frame in range(20)]
    assert taken[-1] == clock.now and channel.dropped == 19
