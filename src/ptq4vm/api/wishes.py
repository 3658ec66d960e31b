"""What people wish of a matte beyond the network's own: values as they are written, to the refiners that do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptq4vm.engines.base import MattingEngine
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.media.images import open_alpha
from ptq4vm.video.colours import Decontamination
from ptq4vm.video.propagating import PropagatingEngine
from ptq4vm.video.refining import RefinedEngine, Refiner
from ptq4vm.video.smoothing import Smoothing
from ptq4vm.video.subject import Subject

MOST_BETWEEN = 30
"""Frames from one that the network sees to the next at most."""


@dataclass(frozen=True)
class Wishes:
    """See :func:`ptq4vm.matte`.

    Attributes:
        subject: ``x,y`` of the one subject that is kept, in the first frame: pixels, or shares in [0, 1].
        mask: A picture of the subject in the first frame, as a matte.
        smooth: The share of the alpha before that the rim takes, in [0, 1); 0 leaves it as it is.
        decontaminate: Whether the foreground's colours at the rim are taken from where it is opaque.
        every: The network sees every n-th frame, 1 to 30; mattes of those between are moved along the optical flow.

    Raises:
        ConfigError: A value is out of range, or there are two subjects.
    """

    subject: str | None = None
    mask: str | Path | None = None
    smooth: float = 0.0
    decontaminate: bool = False
    every: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.every <= MOST_BETWEEN:
            raise ConfigError(f"every={self.every} is out of range: use 1, for every frame, to {MOST_BETWEEN}")
        if not 0 <= self.smooth < 1:
            raise ConfigError(f"smooth={self.smooth:g} is out of range: use 0 up to below 1")
        if self.subject is not None and self.mask is not None:
            raise ConfigError("subject and mask are two ways to say who is kept: give one")

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the pictures, as far as it is wished for; see :class:`FolderDestination`."""
        values = {
            "subject": self.subject,
            "mask": self.mask,
            "smooth": self.smooth,
            "decontaminate": self.decontaminate,
            "every": self.every if self.every > 1 else None,
        }
        return {key: str(value) for key, value in values.items() if value}

    def engine(self, engine: MattingEngine, refiners: Sequence[Refiner]) -> MattingEngine:
        """The engine with what is wished for, refiners of :meth:`refiners` among it."""
        between = PropagatingEngine(engine, self.every) if self.every > 1 else engine
        return RefinedEngine(between, refiners) if refiners else between

    def refiners(self, size: tuple[int, int]) -> list[Refiner]:
        """New refiners for a video of ``size`` = ``(H, W)``, in the order in which they work.

        Raises:
            ConfigError: The subject is no place in the frame.
            DataError: The mask cannot be read, or is empty.
        """
        found: list[Refiner] = []
        if self.subject is not None:
            found.append(Subject(_point(self.subject, size)))
        if self.mask is not None:
            mask = np.divide(np.asarray(open_alpha(Path(self.mask))), 255, dtype=np.float32)
            if not (mask > 0.5).any():
                raise DataError(f"mask={self.mask} shows nobody: paint who shall be kept white (or opaque)")
            found.append(Subject(mask))
        if self.smooth:
            found.append(Smoothing(self.smooth))
        if self.decontaminate:
            found.append(Decontamination())
        return found


def _point(text: str, size: tuple[int, int]) -> tuple[float, float]:
    """``x,y`` as shares of the width and height."""
    wrong = f"subject={text} is no place in a frame of {size[1]}x{size[0]}: write x,y in pixels, or as shares, 0.5,0.4"
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise ConfigError(wrong) from None
    if not (0 <= x < size[1] and 0 <= y < size[0]):
        raise ConfigError(wrong)
    return (x, y) if max(x, y) <= 1 else (x / size[1], y / size[0])
