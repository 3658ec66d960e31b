"""The network on key frames alone, and mattes moved between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptq4vm.api.wishes import Wishes
from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.enlarging import Enlarger, GuidedMatte
from ptq4vm.errors import ConfigError
from ptq4vm.video.propagating import PropagatingEngine

SIZE = (72, 128)


def figure(shift: float) -> tuple[np.ndarray, np.ndarray]:
    """A bright textured disc ``shift`` pixels to the right, over a darker pattern; and its alpha."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    alpha = np.clip(20.5 - np.hypot(rows - 36, columns - 50 - shift), 0, 1)
    skin = 180 + 40 * np.sin((columns - shift) / 3) * np.cos(rows / 4)
    ground = 60 + 30 * np.cos(columns / 7) * np.sin(rows / 5)
    grey = alpha * skin + (1 - alpha) * ground
    return np.repeat(np.rint(grey)[..., None], 3, 2).astype(np.uint8), alpha.astype(np.float32)


class Told(MattingEngine):
    """Gives the alphas that it was told, and counts the frames that it sees."""

    def __init__(self, small: bool = False) -> None:
        self.alpha = np.zeros(SIZE, np.float32)
        self.seen = self.resets = 0
        self._small = small

    def reset(self) -> None:
        self.resets += 1

    def matte(self, frame: Any) -> Matte:
        self.seen += 1
        return Matte(self.alpha, np.divide(frame, 255, dtype=np.float32) / 2)

    def deferred(self, frame: Any) -> Any:
        if not self._small:
            return self.matte(frame)
        small = np.ascontiguousarray(frame[::2, ::2])
        self.alpha, before = np.ascontiguousarray(self.alpha[::2, ::2]), self.alpha
        found = GuidedMatte(Enlarger(1), frame, small, self.matte(small))
        self.alpha = before
        return found


@pytest.mark.parametrize("small", [False, True])
def test_mattes_between_follow_the_picture(small: bool) -> None:
    told = Told(small)
    engine = PropagatingEngine(told, every=2)
    for step in range(6):
        frame, alpha = figure(step)
        told.alpha = alpha if step % 2 == 0 else np.zeros_like(alpha)
        found = engine.matte(frame)
        off, still = np.abs(found.alpha - alpha).mean(), np.abs(figure(step - step % 2)[1] - alpha).mean()
        assert off < (0.03 if small else 0.5 * still + 1e-6)
        residual = found.foreground - frame / np.float32(255)
        assert np.abs(residual + frame / np.float32(510)).mean() < 0.03
    assert told.seen == 3


def test_what_has_changed_is_seen_by_the_network() -> None:
    told = Told()
    engine = PropagatingEngine(told, every=30)
    engine.matte(figure(0)[0])
    engine.matte(figure(1)[0])
    assert told.seen == 1
    engine.matte(255 - figure(2)[0])
    assert told.seen == 2, "another scene"
    engine.matte(255 - figure(3)[0])
    assert told.seen == 2, "it is the key frame now"
    engine.matte(np.zeros((*SIZE[::-1], 3), np.uint8))
    assert told.seen == 3, "frames of another size are another video"
    engine.reset()
    engine.matte(np.zeros((*SIZE[::-1], 3), np.uint8))
    assert (told.seen, told.resets) == (4, 1)


def test_what_moves_quickly_is_seen_by_the_network() -> None:
    told = Told()
    engine = PropagatingEngine(told, every=30)
    for step, seen in enumerate((1, 1, 2, 2, 3)):  # a pixel moves some 0.009 of alpha
        frame, told.alpha = figure(step)
        engine.matte(frame)
        assert told.seen == seen


def test_every_frame_by_default_and_sensible_numbers_alone() -> None:
    told = Told()
    assert Wishes().engine(told, []) is told
    assert isinstance(Wishes(every=2).engine(told, []), PropagatingEngine)
    assert Wishes(every=2).identity == {"every": "2"}
    assert not Wishes(every=1).identity
    for wrong in (0, -1, 31):
        with pytest.raises(ConfigError, match=f"every={wrong} is out of range"):
            Wishes(every=wrong)
