"""More than 8 bits: the view that networks see, and how what they say of it goes back to the film's own codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PQ, HLG, BT2020 = 16, 18, 9
"""Numbers of two transfer functions and of a set of primary colours, of ITU-T H.273."""

_WHITE = 203.0
"""Candelas per square metre of what is white in ordinary films (ITU-R BT.2408)."""
_BRIGHTEST = 1000.0
"""Likewise, of what the view shows as white."""
_PQ_PEAK = 10000.0
_DISPLAY_GAMMA = 2.4
_TOP = 65535
_TO_BT2020 = np.array(
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
)  # ITU-R BT.2087, of light


@dataclass(frozen=True)
class Grade:
    """How codes of a film with more than 8 bits and those of its 8-bit view belong together.

    PQ is brought to the view by one curve for every channel (Reinhard's, white at 1000 candelas per square metre).
    Everything else, HLG too, was made to be seen as it is.

    Attributes:
        transfer: Number of the film's transfer function.
        primaries: Number of its set of primary colours.
    """

    transfer: int
    primaries: int

    @property
    def mapped(self) -> bool:
        """Whether the view has other tones than the film."""
        return self.transfer == PQ

    def view(self, codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """The 8-bit view of ``(H, W, 3)`` codes, 0 to 65535."""
        return self._view[codes]

    def lift(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of the view, in [0, 1], as values of the film, in [0, 1]."""
        if not self.mapped:
            return values
        return self._lifted[np.rint(np.clip(values, 0, 1) * _TOP).astype(np.uint16)]

    def ordinary(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """An ordinary (sRGB) picture in [0, 1], channels last, as a film of this grade holds it; its white is white."""
        if self.transfer not in (PQ, HLG):
            return picture
        light = np.clip(picture, 0, 1).astype(np.float64) ** _DISPLAY_GAMMA
        if self.primaries == BT2020:
            light = light @ _TO_BT2020.T
        codes = _pq_of(light * _WHITE) if self.transfer == PQ else _hlg_of(light * _WHITE)
        return np.asarray(codes, np.float32)

    @cached_property
    def _tones(self) -> NDArray[np.float64]:
        """Values of the view at each code, not falling."""
        light = _light_of_pq(np.arange(_TOP + 1) / _TOP) / _WHITE
        top = _BRIGHTEST / _WHITE
        shown = np.minimum(light * (1 + light / top**2) / (1 + light), 1)
        return np.asarray(shown ** (1 / _DISPLAY_GAMMA))

    @cached_property
    def _view(self) -> NDArray[np.uint8]:
        values = self._tones if self.mapped else np.arange(_TOP + 1) / _TOP
        return np.rint(values * 255).astype(np.uint8)

    @cached_property
    def _lifted(self) -> NDArray[np.float32]:
        below = int(np.searchsorted(self._tones, 1.0)) + 1  # all codes above it look alike
        values = np.linspace(0, 1, _TOP + 1)
        return np.interp(values, self._tones[:below], np.arange(below) / _TOP).astype(np.float32)


class Deep(NamedTuple):
    """A frame with all its bits.

    Attributes:
        codes: ``(H, W, 3)`` uint16 RGB, upright, 0 to 65535.
        grade: How they belong with the frame's 8-bit view.
    """

    codes: NDArray[np.uint16]
    grade: Grade

    def foreground(self, view: NDArray[np.uint8], predicted: NDArray[np.float32]) -> NDArray[np.float32]:
        """What was predicted of the view, as colours of the film: its own, changed as much as the network changed them.

        Args:
            view: ``(H, W, 3)`` uint8, what the network saw.
            predicted: ``(H, W, 3)`` float32 in [0, 1], what it says is in front.

        Returns:
            ``(H, W, 3)`` float32 in [0, 1].
        """
        seen = np.divide(view, 255, dtype=np.float32)
        change = self.grade.lift(predicted) - self.grade.lift(seen)
        own = np.divide(self.codes, _TOP, dtype=np.float32)
        return np.clip(own + change, 0, 1)


_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128  # of SMPTE ST 2084


def _light_of_pq(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Candelas per square metre of codes in [0, 1]."""
    power = codes ** (1 / _M2)
    return np.asarray(_PQ_PEAK * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1))


def _pq_of(light: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (light / _PQ_PEAK) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _hlg_of(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """HLG's codes of what a display of 1000 candelas per square metre shows so bright (ITU-R BT.2100, gamma 1.2)."""
    scene = (light / _BRIGHTEST) ** (1 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c))
