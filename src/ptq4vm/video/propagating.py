"""The network on key frames alone: mattes of the frames between are those before, moved along the optical flow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.enlarging import GuidedMatte, WrappedEngine
from ptq4vm.video.following import Follower, grey_of

CHANGED = 0.2
"""Share of a picture that does not look like what it was, moved, beyond which the network sees the frame after all."""

MOVED = 0.01
"""How much alpha may differ from the key frame's on average: the flow errs at the rim by about a fifth of that."""


class Key(NamedTuple):
    """A frame that the network saw.

    Attributes:
        shape: The frame's own, ``(H, W, 3)``: frames of another one are another video.
        seen: ``(h, w, 3)`` uint8 RGB: the frame at the matte's size.
        grey: ``(h, w)`` uint8: the same as grey.
        found: What the engine gave for it.
        matte: The matte at that size.
    """

    shape: tuple[int, ...]
    seen: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    found: Matte | GuidedMatte
    matte: Matte


class PropagatingEngine(WrappedEngine[MattingEngine]):
    """An engine whose network sees every n-th frame, and every frame in which much has moved or changed since.

    Alpha, and what the foreground differs from the picture by, are moved from the key frame; the frame itself guides
    them to its full size where they are small.

    Args:
        engine: What mattes key frames. It goes on from one to the next as if there were none between.
        every: Frames from one key frame to the next; 1 for every frame.
    """

    def __init__(self, engine: MattingEngine, every: int) -> None:
        super().__init__(engine)
        self._every = every
        self._follower = Follower()
        self._since = 0
        self._key: Key | None = None

    def reset(self) -> None:
        """See :meth:`MattingEngine.reset`."""
        super().reset()
        self._key = None

    def deferred(self, frame: NDArray[np.uint8]) -> Matte | GuidedMatte:
        """See :meth:`MattingEngine.deferred`."""
        key = self._key
        self._since += 1
        if key is not None and frame.shape == key.shape and self._since < self._every:
            between = self._moved(key, frame)
            if between is not None:
                return between
        found = self.engine.deferred(frame)
        seen, matte = (found.small, found.matte) if isinstance(found, GuidedMatte) else (frame, found)
        self._key, self._since = Key(frame.shape, seen, grey_of(seen), found, matte), 0
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
