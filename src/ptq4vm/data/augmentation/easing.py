"""Courses of a motion in time: from 0 to 1, slow, sudden, springing or bouncing (Penner's easing functions)."""

from __future__ import annotations

import math
from collections.abc import Callable

Curve = Callable[[float], float]

_OVERSHOOT = 1.70158  # by which "back" passes its end by a tenth


def _bounce(t: float) -> float:
    """A ball let fall at time 1 and seen backwards: four arcs of one parabola, each half as wide as the one before."""
    rest = 1 - t
    for end, middle, floor in ((4 / 11, 0, 0), (8 / 11, 6 / 11, 3 / 4), (10 / 11, 9 / 11, 15 / 16)):
        if rest <= end:
            return 1 - floor - (121 / 16) * (rest - middle) ** 2
    return 1 - 63 / 64 - (121 / 16) * (rest - 21 / 22) ** 2


_STARTS: dict[str, Curve] = {
    "sine": lambda t: 1 - math.cos(t * math.pi / 2),
    "quad": lambda t: t**2,
    "cubic": lambda t: t**3,
    "quartic": lambda t: t**4,
    "quintic": lambda t: t**5,
    "exponential": lambda t: 0.0 if t <= 0 else 2.0 ** (10 * (t - 1)),
    "circular": lambda t: 1 - math.sqrt(max(0.0, 1 - t * t)),
    "back": lambda t: t * t * ((_OVERSHOOT + 1) * t - _OVERSHOOT),
    "elastic": lambda t: math.sin(13 * math.pi / 2 * t) * 2.0 ** (10 * (t - 1)),
    "bounce": _bounce,
}
"""Each family as it starts: from rest at 0 to full speed at 1."""

EASINGS: tuple[str, ...] = (
    "linear",
    *(f"{family}_{end}" for family in _STARTS for end in ("in", "out", "in_out")),
    "step",
)
"""Names of all courses."""


def ease(name: str, t: float) -> float:
    """How far a motion has come at time ``t``.

    Args:
        name: One of :data:`EASINGS`: ``<family>_in`` starts gently, ``_out`` ends gently, ``_in_out`` does both;
            ``step`` jumps half way.
        t: In [0, 1].

    Returns:
        0 at time 0 and 1 at time 1, to 1e-3; ``back`` and ``elastic`` leave [0, 1] in between.

    Raises:
        KeyError: Unknown name.
    """
    if name == "linear":
        return t
    if name == "step":
        return float(t >= 0.5)
    family, _, end = name.partition("_")
    start = _STARTS[family]
    if end == "in":
        return start(t)
    if end == "out":
        return 1 - start(1 - t)
    return start(2 * t) / 2 if t < 0.5 else 1 - start(2 - 2 * t) / 2
