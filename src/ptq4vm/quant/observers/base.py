"""Observers: see tensors, then give the range that a quantizer should cover. They never touch a quantizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.quant.spec import ActivationSpec

WeightObserver: TypeAlias = Callable[[Tensor, int, int], Tensor]
"""Rows of a weight ``(G, N)``, smallest and largest code; gives the scale of every row's symmetric grid, ``(G,)``."""

Range: TypeAlias = tuple[float, ...]
"""``(low, high)``, and behind it what else a quantizer wants to be found: HTDQ its relaxation coefficient."""


class JointObserver(ABC):
    """Collects values of several groups (channels, branches of a concatenation) that will share one zero point."""

    @abstractmethod
    def observe(self, parts: Sequence[Tensor], first: int = 0) -> None:
        """Take in the values of consecutive groups from ``first`` on, each ``(..., c, H, W)`` of one tensor."""

    @abstractmethod
    def ranges(self) -> Sequence[Range]:
        """``(low, high)`` of every group; all give the same zero point. Raises :class:`DataError` when unobserved."""


class Observer(ABC):
    """Collects values of one site over calibration data.

    One class a file, registered in :data:`ptq4vm.quant.registries.OBSERVERS` under the name that
    :attr:`ptq4vm.quant.spec.ActivationSpec.observer` chooses it by.
    """

    @classmethod
    def from_spec(cls, spec: ActivationSpec, seed: int) -> Observer:
        """Build the observer of one site. Observers that need anything of the choices or of chance say so here."""
        return cls()

    @classmethod
    def joint(cls, spec: ActivationSpec, groups: int, seed: int, relative: bool) -> JointObserver | None:
        """Build what looks at ``groups`` groups of values together; ``None`` where each group is looked at alone.

        Args:
            spec: Choices of the activations' quantizers.
            groups: How many groups of values there are.
            seed: Seed that decides which values are kept.
            relative: Whether groups come from different tensors, so that each error counts relative to its group's
                size.
        """
        return None

    @abstractmethod
    def observe(self, values: Tensor) -> None:
        """Take in one tensor of any shape."""

    @abstractmethod
    def range(self) -> Range:
        """``(low, high)`` of what was seen, always containing 0. Raises :class:`DataError` when nothing was."""


class SampleObserver(Observer):
    """Keeps the extremes and an even sample of values, for observers that look at the distribution.

    Args:
        per_call: Values kept of each observed tensor, taken at random places by an own generator.
        seed: Seed of that generator.
    """

    LIMIT = 65536  # values that a search looks at

    def __init__(self, per_call: int = 16384, seed: int = 0) -> None:
        self.per_call = per_call
        self.low = 0.0
        self.high = 0.0
        self._samples: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def from_spec(cls, spec: ActivationSpec, seed: int) -> Observer:
        """Build one whose sampling is seeded."""
        return cls(seed=seed)

    def observe(self, values: Tensor) -> None:
        """Take in one tensor of any shape."""
        flat = values.detach().flatten()
        low, high = torch.aminmax(flat)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        if flat.numel() > self.per_call:
            places = torch.randint(flat.numel(), (self.per_call,), generator=self._generator)
            flat = flat[places.to(flat.device)]
        self._samples.append(flat.float().cpu())

    def samples(self) -> Tensor:
        """At most :attr:`LIMIT` of the kept values, ``(N,)`` float32. Raises :class:`DataError` when there are none."""
        if not self._samples:
            raise DataError("an activation was never observed: the calibration clips do not reach this layer")
        values = torch.cat(self._samples)
        if values.numel() > self.LIMIT:
            values = values[torch.randint(values.numel(), (self.LIMIT,), generator=self._generator)]
        return values
