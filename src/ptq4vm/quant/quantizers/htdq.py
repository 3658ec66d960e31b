"""Activation quantizer with logarithmic levels for skewed tensors, on an integer grid: QVD's HTDQ (2407.11585)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ptq4vm.errors import ConfigError
from ptq4vm.quant.quantizers.base import QParams, SiteRanges
from ptq4vm.quant.quantizers.uniform import UniformQuantizer, joint_grids
from ptq4vm.quant.registries import QUANTIZERS
from ptq4vm.quant.spec import MAX_BITS, ActivationSpec


def log_levels(bits: int, grid_max: int, zero_point: int, relaxation: float) -> Tensor:
    """Place the levels of a logarithmic quantizer on the codes of a finer grid with even steps.

    On both sides of the zero point the ``k``-th level lies at a distance of ``r (exp(k d) - 1)`` codes from it, with
    ``r = relaxation * grid_max``. Near 0, where the distance is below ``r``, levels are about evenly spaced; beyond,
    their distance grows in proportion. So the relaxation coefficient leads from the plain logarithm (0), which spends
    most levels on values that do not matter, to even steps (infinity).

    Args:
        bits: ``2^bits`` levels, one of which is the zero point.
        grid_max: Largest code of the grid; the smallest is 0. At least ``2^bits - 1``.
        zero_point: Code of the value 0, in ``[0, grid_max]``.
        relaxation: Positive, or infinite.

    Returns:
        ``(2^bits,)`` int64, strictly increasing, from 0 to ``grid_max``, with ``zero_point`` among them.
    """
    above, below = grid_max - zero_point, zero_point
    steps = 2**bits - 1
    lengths = [_warp(side, relaxation * grid_max) for side in (above, below)]
    counts = [0, 0]
    counts[1] = round(steps * lengths[1] / sum(lengths))
    counts[1] = min(max(counts[1], int(below > 0), steps - above), steps - int(above > 0), below)
    counts[0] = steps - counts[1]
    up = _distances(above, counts[0], relaxation * grid_max)
    down = _distances(below, counts[1], relaxation * grid_max)
    return torch.tensor([zero_point - d for d in reversed(down)] + [zero_point] + [zero_point + d for d in up])


def _warp(distance: float, bend: float) -> float:
    """How far a distance is from 0 where levels are evenly spaced; any multiple of it does."""
    return distance if math.isinf(bend) else math.log1p(distance / bend)


def _distances(reach: int, count: int, bend: float) -> list[int]:
    """Distances of ``count`` levels from 0, the last of them ``reach``; neighbours differ by one code at least."""
    found: list[int] = []
    for number in range(1, count + 1):
        share = number / count
        distance = reach * share if math.isinf(bend) else bend * math.expm1(share * math.log1p(reach / bend))
        lowest = found[-1] + 1 if found else 1
        found.append(min(max(round(distance), lowest), reach - (count - number)))
    return found


def nearest_levels(levels: Tensor, grid_max: int) -> Tensor:
    """Nearest level to every code of the grid, the lower one of two; ``(grid_max + 1,)`` int64."""
    codes = torch.arange(grid_max + 1)
    return levels[torch.bucketize(2 * codes, levels[1:] + levels[:-1])]


@QUANTIZERS.register("htdq")
class HTDQuantizer(UniformQuantizer):
    """Rounds to a grid with even steps, as an engine stores it, and from there to ``2^bits`` of its codes.

    Which codes: :func:`log_levels`. At :attr:`ActivationSpec.grid_bits` and more all codes are levels, and the
    quantizer is the uniform one. An integer engine looks codes up in a table of 256 entries; channels may have scales
    of their own. The scale is learned as the uniform quantizer's is; the levels move along with it.

    Args:
        bits: 2 to 8: there are ``2^bits`` levels.
        grid_bits: Bits of the grid, at least ``bits``.
        scale: Initial scales of the grid, one per branch, positive.
        zero_point: Integer code of the value 0 on the grid.
        relaxation: See :func:`log_levels`.
        sizes: Channels of each branch when there are several (dimension -3 of the input), else empty.
        learns: False keeps the scales as they are.
    """

    table: Tensor

    def __init__(
        self,
        bits: int,
        grid_bits: int,
        scale: Tensor,
        zero_point: int,
        relaxation: float = math.inf,
        sizes: Sequence[int] = (),
        learns: bool = True,
    ) -> None:
        super().__init__(max(bits, grid_bits), scale, zero_point, sizes, learns)
        self.level_bits = bits
        levels = log_levels(bits, self.quant_max, zero_point, relaxation)
        self.register_buffer("table", nearest_levels(levels, self.quant_max).int())

    @classmethod
    def joined(cls, spec: ActivationSpec, seen: Sequence[SiteRanges], one_scale: bool) -> list[UniformQuantizer]:
        """Build the quantizers of sites that share a zero point; each has the coefficient that comes with its range."""
        return [
            cls(spec.bits, spec.grid_bits, scale, int(zero), _relaxation(spec, site), site.sizes, site.learns)
            for (scale, zero), site in zip(joint_grids(spec, seen, one_scale), seen, strict=True)
        ]

    @property
    def even(self) -> bool:
        """Whether every code of the grid is a level."""
        return self.level_bits >= self.bits

    def fake_quantize(self, x: Tensor) -> Tensor:
        """``x`` at its levels, same shape and dtype; gradients are those of the grid (straight-through)."""
        y = super().fake_quantize(x)
        if self.even:
            return y
        scale = self.channel_scale().detach().to(x.dtype)
        scale = scale.view(-1, 1, 1) if self.sizes else scale
        codes = (y.detach() / scale).round_().add_(self.zero_point).to(torch.int32)
        # several times faster than indexing by a tensor of that many dimensions
        found = self.table.index_select(0, codes.flatten()).view(codes.shape)
        level = (found.to(x.dtype) - self.zero_point) * scale
        return y + (level - y).detach() if y.requires_grad else level

    def qparams(self) -> QParams:
        """The grid, for engines, and the table.

        Raises:
            ConfigError: The levels lie on a grid that is finer than 8 bits.
        """
        if self.bits > MAX_BITS:
            raise ConfigError(
                f"HTDQ's levels lie on a grid of {self.bits} bits, and integer engines store {MAX_BITS}: "
                f"calibrate with method.quantizer.activation.grid_bits={MAX_BITS} to export"
            )
        return super().qparams()._replace(table=None if self.even else self.table)

    def _with_scale(self, scale: Tensor, sizes: Sequence[int], zero: int | Tensor) -> HTDQuantizer:
        new = HTDQuantizer(self.level_bits, self.bits, scale, int(zero), sizes=sizes, learns=False)
        new.table = self.table.clone()
        return new

    def extra_repr(self) -> str:
        """Bits, levels, scales and zero point, as ``print(network)`` shows them."""
        return f"levels={2**self.level_bits}, {super().extra_repr()}"


def _relaxation(spec: ActivationSpec, seen: SiteRanges) -> float:
    """What was found with the range of a site, or what the choices say."""
    first = seen.ranges[0]
    return first[2] if len(first) > 2 else spec.relaxation
