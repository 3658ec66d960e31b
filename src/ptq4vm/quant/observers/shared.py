"""Ranges of several groups (channels, branches of a concatenation) that share one zero point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from ptq4vm.errors import DataError
from ptq4vm.quant.functional import covering_scale, search_scale
from ptq4vm.quant.observers.base import JointObserver


class SharedZeroObserver(JointObserver):
    """Finds, for all groups together, the zero point and each group's scale with the least squared error.

    Args:
        groups: How many groups of values are observed.
        quant_max: Largest code of the grid; the smallest is 0.
        asymmetric: False keeps the zero point at 0 (nothing negative seen) or mid-grid.
        per_call: How many values of each group and observed tensor are kept.
        limit: How many values of each group the search looks at, at most: with ``clipped`` above 1 the outermost one by
            one, and among the others every so-manieth, which stands for its neighbours; else any.
        seed: Seed that decides which values are kept.
        relative: Whether every group's error is divided by its mean square, so that groups of different size weigh
            alike.
        own_zeros: Whether every group keeps the zero point that is best for itself.
        signed: Whether the zero point is mid-grid where nothing negative is seen as well; without ``asymmetric``.
        clipped: How much a squared error of clipping counts beside one of rounding. Above 1, the smallest and the
            largest value that were seen are always looked at.
    """

    STEPS = 16  # candidate scales for each zero point
    TAIL = 128  # values at each end that are looked at one by one

    def __init__(
        self,
        groups: int,
        quant_max: int,
        asymmetric: bool = True,
        per_call: int = 256,
        limit: int = 2048,
        seed: int = 0,
        relative: bool = False,
        own_zeros: bool = False,
        signed: bool = False,
        clipped: float = 1.0,
    ) -> None:
        self.groups = groups
        self.quant_max = quant_max
        self.clipped = clipped
        self.asymmetric, self.signed = asymmetric, signed
        self.per_call = per_call
        self.limit = limit
        self.low = torch.zeros(groups)
        self.high = torch.zeros(groups)
        self.relative = relative
        self.own_zeros = own_zeros
        self._samples: list[list[Tensor]] = [[] for _ in range(groups)]
        self._generator = torch.Generator().manual_seed(seed)

    def observe(self, parts: Sequence[Tensor], first: int = 0) -> None:
        """Take in the values of consecutive groups from ``first`` on, each of any shape."""
        rows = [part.detach().flatten() for part in parts]
        for _, groups in groupby(range(len(rows)), key=lambda group: rows[group].numel()):
            # groups of one size in one go: thousands of channels by themselves take longer than the network
            chosen = list(groups)
            self._observe(torch.stack([rows[group] for group in chosen]), first + chosen[0])

    def _observe(self, values: Tensor, first: int) -> None:
        """Take in as many values, ``(G, N)``, of each of consecutive groups from ``first`` on."""
        span = slice(first, first + len(values))
        low, high = torch.aminmax(values, dim=1)
        self.low[span] = torch.minimum(self.low[span], low.float().cpu())
        self.high[span] = torch.maximum(self.high[span], high.float().cpu())
        places = torch.randint(values.shape[1], (len(values), self.per_call), generator=self._generator)
        kept = values.gather(1, places.to(values.device)).float().cpu()
        for group, row in enumerate(kept.unbind(), first):
            self._samples[group].append(row)

    def ranges(self) -> list[tuple[float, float]]:
        """``(low, high)`` of every group; all give the same zero point unless each keeps its own.

        Raises:
            DataError: A group was never observed.
        """
        values, shares = self._values()
        least = torch.full((self.groups,), torch.inf)
        best_zero, best_scale = torch.zeros(self.groups), torch.ones(self.groups)
        for zero in self._zeros():
            errors, scale = self._search(values, zero, shares)
            found = errors if self.own_zeros else errors.sum().expand(self.groups)
            better = found < least
            least = torch.where(better, found, least)
            best_zero = torch.where(better, float(zero), best_zero)
            best_scale = torch.where(better, scale, best_scale)
        lows, highs = -best_zero * best_scale, (self.quant_max - best_zero) * best_scale
        return list(zip(lows.tolist(), highs.tolist(), strict=True))

    def _values(self) -> tuple[Tensor, Tensor | None]:
        """At most ``limit`` values of every group, ``(groups, N)``, and what share of all each stands for, ``(N,)``.

        Without shares all count alike.
        """
        if not all(self._samples):
            raise DataError("an activation was never observed: the calibration clips do not reach this layer")
        rows = [torch.cat(kept) for kept in self._samples]
        length = min(len(row) for row in rows)
        if self.clipped > 1 and length > self.limit:
            return self._with_tails(rows, length)
        if any(len(row) != length for row in rows):  # some are seen once for every frame, others once for a clip
            rows = [row[torch.randint(len(row), (self.limit,), generator=self._generator)] for row in rows]
        elif length > self.limit:
            places = torch.randint(length, (self.limit,), generator=self._generator)
            rows = [row[places] for row in rows]
        return torch.stack(rows), None

    def _with_tails(self, rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
        """:meth:`_values`, of ``length`` each, with the smallest and the largest that were seen, kept or not."""
        picked = (
            row if len(row) == length else row[torch.randint(len(row), (length,), generator=self._generator)]
            for row in rows
        )
        values = torch.stack(list(picked)).sort(dim=1).values
        values[:, 0], values[:, -1] = self.low, self.high
        between = torch.linspace(self.TAIL, length - self.TAIL - 1, self.limit - 2 * self.TAIL).round().long()
        places = torch.cat([torch.arange(self.TAIL), between, torch.arange(length - self.TAIL, length)])
        shares = torch.full((self.limit,), 1 / length)
        shares[self.TAIL : -self.TAIL] = (1 - 2 * self.TAIL / length) / len(between)
        return values[:, places], shares

    def _zeros(self) -> list[int]:
        negative = bool((self.low < 0).any())
        if not self.asymmetric:
            return [(self.quant_max + 1) // 2 if negative or self.signed else 0]
        if not negative:
            return [0]
        step = max(1, (self.quant_max + 1) // 16)
        return list(range(0, self.quant_max, step))

    def _search(self, values: Tensor, zero: int, shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Least error and its scale for every group under a zero point, ``(groups,)`` each."""
        # codes are counted from the zero point: without any below it, negative values are clipped
        low = self.low if zero else torch.zeros_like(self.low)
        full = covering_scale(low, self.high, -zero, self.quant_max - zero)
        divisor = None
        if self.relative:
            energy = values.square().mean(1) if shares is None else values.square() @ shares
            divisor = energy.clamp_min(1e-12)
        scale = full * torch.linspace(1, 0.1, self.STEPS)[:, None]
        ends = -zero, self.quant_max - zero
        best, error = search_scale(values, scale, 0, *ends, divisor=divisor, shares=shares, clipped=self.clipped)
        return error, scale.gather(0, best[None])[0]
