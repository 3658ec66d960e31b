"""The network on key frames alone: mattes of the frames between are those before, moved along the optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.enlarging import GuidedMatte
from ptq4vm.video.following import Follower, grey_of

CHANGED = 0.2
"""Share of a picture that does not look like what it was, moved, beyond which the network sees the frame after all."""

MOVED = 0.01
"""How much alpha may differ from the key frame's on average: the flow errs at the rim by about a fifth of that."""


class Key(NamedTuple):
    """A frame that the network saw.

    Attributes:
        seen: ``(h, w, 3)`` uint8 RGB: the frame at the matte's size.
        grey: ``(h, w)`` uint8: the same as grey.
        found: What the engine gave for it.
        matte: The matte at that size.
    """

    seen: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    found: Matte | GuidedMatte
    matte: Matte


class PropagatingEngine(MattingEngine):
    """An engine whose network sees every n-th frame, and every frame in which much has moved or changed since.

    Alpha, and what the foreground differs from the picture by, are moved from the key frame; the frame itself guides
    them to its full size where they are small.

    Args:
        engine: What mattes key frames. It goes on from one to the next as if there were none between.
        every: Frames from one key frame to the next; 1 for every frame.
    """

    def __init__(self, engine: MattingEngine, every: int) -> None:
        self._engine, self._every = engine, every
        self._follower = Follower()
        self._since = 0
        self._key: Key | None = None
        self._size: tuple[int, ...] = ()

    def reset(self) -> None:
        """See :meth:`MattingEngine.reset`."""
        self._engine.reset()
        self._key = None

    def executed_types(self) -> Mapping[tuple[str, str], int] | None:
        """See :meth:`MattingEngine.executed_types`."""
        return self._engine.executed_types()

    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        """See :meth:`MattingEngine.matte`."""
        found = self.deferred(frame)
        return found.whole if isinstance(found, GuidedMatte) else found

    def deferred(self, frame: NDArray[np.uint8]) -> Matte | GuidedMatte:
        """See :meth:`MattingEngine.deferred`."""
        key, size, self._size = self._key, self._size, frame.shape
        self._since += 1
        if key is not None and frame.shape == size and self._since < self._every:
            between = self._moved(key, frame)
            if between is not None:
                return between
        found = self._engine.deferred(frame)
        seen, matte = (found.small, found.matte) if isinstance(found, GuidedMatte) else (frame, found)
        self._key, self._since = Key(seen, grey_of(seen), found, matte), 0
        return found

    def _moved(self, key: Key, frame: NDArray[np.uint8]) -> Matte | GuidedMatte | None:
        """The matte of a frame between; ``None`` where too much has moved or changed since the key frame."""
        small = key.found.shrunk(frame) if isinstance(key.found, GuidedMatte) else frame
        places = self._follower.places(grey_of(small), key.grey)
        if float((places.alike == 0).mean()) > CHANGED:
            return None
        alpha = places.moved(key.matte.alpha)
        if float(np.abs(alpha - key.matte.alpha).mean()) > MOVED:
            return None
        residual = key.matte.foreground - np.divide(key.seen, 255, dtype=np.float32)
        foreground = np.clip(places.moved(residual) + np.divide(small, 255, dtype=np.float32), 0, 1)
        matte = Matte(alpha, np.asarray(foreground, np.float32))
        return key.found.of(frame, small, matte) if isinstance(key.found, GuidedMatte) else matte
