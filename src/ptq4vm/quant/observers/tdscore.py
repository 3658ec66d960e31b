"""Ranges and relaxation coefficients by QVD's metric K: the error, and how far frames stay as unlike as they were.

QVD (arXiv 2407.11585) scores a feature by its temporal discriminability (TDScore): its similarity to the same feature
in neighbouring frames. A quantizer that moves that score takes away what tells frames apart, or adds flicker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ptq4vm.errors import DataError
from ptq4vm.quant.functional import covering_scale
from ptq4vm.quant.observers.base import JointObserver, Observer
from ptq4vm.quant.quantizers.htdq import log_levels, nearest_levels
from ptq4vm.quant.registries import OBSERVERS
from ptq4vm.quant.spec import ActivationSpec

RELAXATIONS = (1.0, 0.3, 0.1, 0.03)
"""Candidates besides even steps, which stay where none of them is better."""
STEPS = 8
"""Candidate scales of every group."""
FACTORS = (1.0, 0.6, 0.7, 0.84, 1.2, 1.4)
"""By which all scales are multiplied together, where K gains by it; single scales follow the error of even steps."""
WIDER = (0.8, 1.0, 1.25, 1.6, 2.0, 2.6, 3.4)
"""The same for bent levels, which reach further. Channels keep the ratios that even steps give them: fitted to bent
levels they followed the largest values, and 4-bit weights that carry such scales lost more than activations gained."""
MARGIN = 0.8
"""Levels are bent only where K falls below this share of what even steps have: that small gains help alpha did not
hold for people who were not calibrated on."""
FINE = 24
"""Candidate scales of every group once the zero point and the coefficient are known."""
ZEROS = 2
"""Zero points with which coefficients are tried: those that are best for even steps."""

RUN = 3
"""Frames that are looked at in the same places, and whose similarity is scored."""


def td_score(features: Tensor) -> Tensor:
    """Temporal discriminability of every frame: mean cosine similarity to the frames before and after it.

    Args:
        features: ``(..., T, D)``, one row a frame, at least two.

    Returns:
        ``(..., T)`` in [-1, 1]; the first and the last frame have one neighbour.
    """
    unit = F.normalize(features, dim=-1)
    pairs = (unit[..., 1:, :] * unit[..., :-1, :]).sum(-1)
    score = (F.pad(pairs, (1, 0)) + F.pad(pairs, (0, 1))) / 2
    score[..., 0], score[..., -1] = pairs[..., 0], pairs[..., -1]
    return score


def td_loss(features: Tensor, quantized: Tensor) -> float:
    """Mean absolute change of :func:`td_score` by quantization, both ``(..., T, D)``; 0 for a single frame."""
    if features.shape[-2] < 2:
        return 0.0
    return float((td_score(quantized) - td_score(features)).abs().mean())


class _Found(NamedTuple):
    scale: Tensor
    zero: int
    relaxation: float


class _Table(NamedTuple):
    """Levels of a quantizer, counted from its zero point.

    Attributes:
        low: Smallest level.
        high: Largest level.
        levels: Nearest level to every code from ``low`` to ``high``, float32.
    """

    low: int
    high: int
    levels: Tensor

    def nearest(self, values: Tensor, scale: Tensor) -> Tensor:
        """Values ``(G, T, P)`` at the nearest levels times each group's scale ``(G,)``, in memory of their own."""
        step = scale[:, None, None]
        codes = (values / step).round_().clamp_(self.low, self.high).sub_(self.low).int()
        return self.levels.index_select(0, codes.flatten()).view(values.shape).mul_(step)


@lru_cache(maxsize=64)  # the search comes back to few of them, hundreds of times
def _table(bits: int, top: int, zero: int, relaxation: float) -> _Table:
    table = nearest_levels(log_levels(bits, top, zero, relaxation), top).float() - zero
    return _Table(-zero, top - zero, table)


class TemporalJoint(JointObserver):
    """Finds the zero point and the relaxation coefficient of groups by K, and each group's scale by its error.

    ``K = error + temporal_weight * td_loss``, where the error is the squared error over the energy.

    Args:
        spec: Choices of the quantizer that the groups will have.
        groups: How many groups of values are observed.
        seed: Seed that decides at which places.
        relative: Whether every group's error counts relative to its own energy.
        per_frame: Values of each group and frame that are kept, at places that stay the same for :data:`RUN` frames.
        limit: Values of each group that the search looks at, about.
    """

    def __init__(
        self, spec: ActivationSpec, groups: int, seed: int, relative: bool, per_frame: int = 32, limit: int = 2048
    ) -> None:
        self.spec, self.groups, self.seed = spec, groups, seed
        self.relative, self.per_frame, self.limit = relative, per_frame, limit
        self.low, self.high = torch.zeros(groups), torch.zeros(groups)
        self._kept: list[list[Tensor]] = [[] for _ in range(groups)]
        self._frames = [0] * groups
        self._drawn: dict[tuple[int, int, int], Tensor] = {}
        self._found: _Found | None = None

    def observe(self, parts: Sequence[Tensor], first: int = 0) -> None:
        """Take in the values of consecutive groups from ``first`` on, each ``(..., c, H, W)``, a frame a row."""
        self._found = None
        for group, part in enumerate(parts, first):
            frames = part.detach().reshape(-1, math.prod(part.shape[-3:]))
            low, high = torch.aminmax(frames)
            self.low[group] = torch.minimum(self.low[group], low.cpu())
            self.high[group] = torch.maximum(self.high[group], high.cpu())
            places = self._places(self._frames[group], *frames.shape)
            self._kept[group].append(frames.gather(1, places.to(frames.device)).float().cpu())
            self._frames[group] += len(frames)

    def _places(self, first: int, frames: int, count: int) -> Tensor:
        """Where ``frames`` frames of ``count`` values are looked at, of which the first is number ``first``."""
        found = self._drawn.get((first, frames, count))
        if found is None:
            found = torch.stack([self._draw(number // RUN, count) for number in range(first, first + frames)])
            self._drawn[first, frames, count] = found  # all groups of a tensor are looked at in the same places
        return found

    def _draw(self, run: int, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 65537 * run)
        return torch.randint(count, (self.per_frame,), generator=generator)

    def ranges(self) -> list[tuple[float, ...]]:
        """``(low, high)`` of every group, and with ``htdq`` the coefficient. Raises :class:`DataError` unobserved."""
        if not all(self._kept):
            raise DataError("an activation was never observed: the calibration clips do not reach this layer")
        if self._found is None:  # every site of a group asks
            rows = [torch.cat(kept) for kept in self._kept]
            frames = min(len(row) for row in rows)
            places = max(4, self.limit // frames)
            self._found = self._search(torch.stack([row[:frames, :places] for row in rows]))
        scale, zero, relaxation = self._found
        own = (relaxation,) if self.spec.quantizer == "htdq" else ()
        return [(-zero * s, (self._top - zero) * s, *own) for s in scale.tolist()]

    def _search(self, values: Tensor) -> _Found:
        """The best of all zero points and coefficients for values ``(G, T, P)``."""
        few = values[..., ::8]
        even = sorted(
            (self._even(few, zero, STEPS) for zero in self._zeros()), key=lambda found: self._metric(few, found)
        )
        bends = RELAXATIONS if self.spec.quantizer == "htdq" and self.spec.bits < self._top.bit_length() else ()
        fitted = [self._even(values, found.zero, FINE) for found in even[:ZEROS]]
        best = self._best(values, fitted, (math.inf,), FACTORS if self.spec.temporal_weight else (1.0,))
        if bends:
            bent = self._best(values, fitted, bends, WIDER)
            if bent[0] < MARGIN * best[0]:
                best = bent
        return best[1]

    def _even(self, values: Tensor, zero: int, steps: int) -> _Found:
        """Even steps, with the scale of every group that has the least squared error among ``steps``."""
        table = self._table(zero, math.inf)
        low = self.low if table.low < 0 else torch.zeros_like(self.low)
        full = covering_scale(low, self.high, table.low, table.high)
        least = torch.full((self.groups,), torch.inf)
        scale = full
        for share in torch.linspace(1, 0.1, steps).tolist():
            error = table.nearest(values, full * share).sub_(values).square_().sum((1, 2))
            scale = torch.where(error < least, full * share, scale)
            least = torch.minimum(error, least)
        return _Found(scale, zero, math.inf)

    def _best(
        self, values: Tensor, grids: Sequence[_Found], bends: Sequence[float], factors: Sequence[float]
    ) -> tuple[float, _Found]:
        """The least K among grids that are bent, and whose scales are multiplied together."""
        tried = (_Found(grid.scale * factor, grid.zero, bend) for grid in grids for bend in bends for factor in factors)
        return min(((self._metric(values, found), found) for found in tried), key=lambda pair: pair[0])

    def _table(self, zero: int, relaxation: float) -> _Table:
        return _table(self.spec.bits, self._top, zero, relaxation)

    def _metric(self, values: Tensor, found: _Found) -> float:
        """K: the relative error, and the change of TDScore."""
        quantized = self._table(found.zero, found.relaxation).nearest(values, found.scale)
        energy = values.square().sum((1, 2)).clamp_min(1e-12)
        divisor = energy * self.groups if self.relative else energy.sum()
        metric = float(((quantized - values).square().sum((1, 2)) / divisor).sum())
        if self.spec.temporal_weight:
            metric += self.spec.temporal_weight * td_loss(_runs(values), _runs(quantized))
        return metric

    @property
    def _top(self) -> int:
        return self.spec.code_range[1]

    def _zeros(self) -> range:
        middle = (self._top + 1) // 2
        if self.spec.signed:
            return range(middle, middle + 1)
        if not bool((self.low < 0).any()):
            return range(1)
        return range(0, self._top, max(1, (self._top + 1) // 16)) if self.spec.asymmetric else range(middle, middle + 1)


def _runs(values: Tensor) -> Tensor:
    """Values ``(G, T, P)`` as the features of frames that follow each other, ``(runs, frames, G * P)``."""
    frames = values.transpose(0, 1).flatten(1)
    if len(frames) < RUN:
        return frames[None]
    return frames[: len(frames) // RUN * RUN].unflatten(0, (-1, RUN))


@OBSERVERS.register("tdscore")
class TDScoreObserver(Observer):
    """Searches the range, and with ``htdq`` the relaxation coefficient, of one site by K (:class:`TemporalJoint`).

    Args:
        spec: Choices of the quantizer.
        seed: Seed that decides which places are looked at.
    """

    def __init__(self, spec: ActivationSpec, seed: int = 0) -> None:
        self._joint = TemporalJoint(spec, 1, seed, relative=False, per_frame=1024, limit=16384)

    @classmethod
    def from_spec(cls, spec: ActivationSpec, seed: int) -> Observer:
        """Build one for the quantizer of the choices."""
        return cls(spec, seed)

    @classmethod
    def joint(cls, spec: ActivationSpec, groups: int, seed: int, relative: bool) -> JointObserver:
        """Scales that share a zero point and a coefficient are searched for together with them."""
        return TemporalJoint(spec, groups, seed, relative)

    def observe(self, values: Tensor) -> None:
        """Take in one tensor ``(..., C, H, W)``, whose leading dimensions count frames in order."""
        self._joint.observe([values])

    def range(self) -> tuple[float, ...]:
        """``(low, high)``, with ``htdq`` the coefficient behind. Raises :class:`DataError` when nothing was seen."""
        return self._joint.ranges()[0]
