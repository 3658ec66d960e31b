"""Ranges of several groups (channels, branches of a concatenation) that share one zero point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ptq4vm.errors import DataError


class SharedZeroObserver:
    """Finds, for all groups together, the zero point and each group's scale with the least squared error.

    Args:
        groups: Rows of what is observed.
        levels: Largest code of the grid.
        affine: False keeps the zero point at 0 (nothing negative seen) or mid-grid.
        per_call: Values kept of each group and observed tensor.
        limit: Values of each group that the search looks at.
        seed: Of the sampling.
        relative: Divide every group's error by its mean square, so that groups of different size weigh alike.
    """

    STEPS = 16  # candidate scales for each zero point

    def __init__(
        self,
        groups: int,
        levels: int,
        affine: bool = True,
        per_call: int = 256,
        limit: int = 2048,
        seed: int = 0,
        relative: bool = False,
    ) -> None:
        self.groups = groups
        self.levels = levels
        self.affine = affine
        self.per_call = per_call
        self.limit = limit
        self.low = torch.zeros(groups)
        self.high = torch.zeros(groups)
        self.relative = relative
        self._samples: list[list[Tensor]] = [[] for _ in range(groups)]
        self._generator = torch.Generator().manual_seed(seed)

    def observe(self, parts: Sequence[Tensor], first: int = 0) -> None:
        """Take in the flat values of consecutive groups from ``first`` on, each ``(N_g,)``."""
        for group, part in enumerate(parts, first):
            values = part.detach()
            low, high = torch.aminmax(values)
            self.low[group] = torch.minimum(self.low[group], low.cpu())
            self.high[group] = torch.maximum(self.high[group], high.cpu())
            places = torch.randint(values.numel(), (self.per_call,), generator=self._generator)
            self._samples[group].append(values[places.to(values.device)].float().cpu())

    def ranges(self) -> list[tuple[float, float]]:
        """``(low, high)`` of every group; all give the same zero point. Raises :class:`DataError` when unobserved."""
        values = self._values()
        best_error, best_zero, best_scale = torch.inf, 0, torch.ones(self.groups)
        for zero in self._zeros():
            errors, scale = self._search(values, zero)
            if float(errors.sum()) < best_error:
                best_error, best_zero, best_scale = float(errors.sum()), zero, scale
        lows, highs = -best_zero * best_scale, (self.levels - best_zero) * best_scale
        return list(zip(lows.tolist(), highs.tolist(), strict=True))

    def _values(self) -> Tensor:
        """At most ``limit`` values of every group, ``(groups, N)``."""
        if not all(self._samples):
            raise DataError("an activation was never observed: the calibration clips do not reach this layer")
        rows = [torch.cat(kept) for kept in self._samples]
        length = min(len(row) for row in rows)
        if any(len(row) != length for row in rows):  # some are seen once for every frame, others once for a clip
            rows = [row[torch.randint(len(row), (self.limit,), generator=self._generator)] for row in rows]
        elif length > self.limit:
            places = torch.randint(length, (self.limit,), generator=self._generator)
            rows = [row[places] for row in rows]
        return torch.stack(rows)

    def _zeros(self) -> list[int]:
        negative = bool((self.low < 0).any())
        if not self.affine:
            return [(self.levels + 1) // 2 if negative else 0]
        if not negative:
            return [0]
        step = max(1, (self.levels + 1) // 16)
        return list(range(0, self.levels, step))

    def _search(self, values: Tensor, zero: int) -> tuple[Tensor, Tensor]:
        """Least error and its scale for every group under a zero point, ``(groups,)`` each."""
        up = self.high / (self.levels - zero)
        down = -self.low / zero if zero else torch.zeros_like(up)
        full = torch.maximum(up, down).clamp_min(1e-8)
        best, best_error = full, torch.full_like(full, torch.inf)
        weight = values.square().mean(1).clamp_min(1e-12) if self.relative else torch.ones(())
        for shrink in torch.linspace(1, 0.1, self.STEPS).tolist():
            scale = full * shrink
            codes = (values / scale[:, None]).round_().clamp_(-zero, self.levels - zero)
            error = codes.mul_(scale[:, None]).sub_(values).square_().mean(1) / weight
            best = torch.where(error < best_error, scale, best)
            best_error = torch.minimum(error, best_error)
        return best_error, best
