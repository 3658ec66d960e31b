"""Activation quantizer with even steps, whose scale is learned (LSQ)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptq4vm.quant.functional import choose_qparams, choose_shared_qparams, fake_quantize
from ptq4vm.quant.quantizers.base import ActivationQuantizer, QParams, SiteRanges
from ptq4vm.quant.registries import QUANTIZERS
from ptq4vm.quant.spec import ActivationSpec


@QUANTIZERS.register("uniform")
class UniformQuantizer(ActivationQuantizer):
    """Fake-quantizes to ``(clamp(round(x / s) + z, 0, 2^bits - 1) - z) * s``.

    The scale is learned by the straight-through estimator of LSQ (Esser et al., ICLR 2020): its gradient is
    multiplied by ``1 / sqrt(N * quant_max)``. It is kept as a logarithm, so it stays positive and one learning rate,
    read as a relative change, fits layers of any range. The zero point is an integer constant.

    Args:
        bits: 2 to 8.
        scale: Initial scales, one per branch, positive.
        zero_point: Integer code of the value 0, shared by all branches; ``(C,)`` integer-valued where every channel is
            a branch with its own.
        sizes: Channels of each branch when there are several (dimension -3 of the input), else empty.
        learns: False keeps the scales as they are: other tensors or weights depend on them.
    """

    log_scale: nn.Parameter
    zero_point: Tensor

    def __init__(
        self, bits: int, scale: Tensor, zero_point: int | Tensor, sizes: Sequence[int] = (), learns: bool = True
    ) -> None:
        super().__init__(bits, sizes, learns)
        if scale.shape != (max(1, len(self.sizes)),):
            raise ValueError(f"scale has shape {tuple(scale.shape)}, expected one value per branch {self.sizes}")
        self.log_scale = nn.Parameter(scale.detach().float().log(), requires_grad=learns)
        self.own_zeros = isinstance(zero_point, Tensor)
        zero = zero_point.detach().float().clone() if isinstance(zero_point, Tensor) else [float(zero_point)]
        self.register_buffer("zero_point", torch.as_tensor(zero))

    @classmethod
    def from_ranges(cls, spec: ActivationSpec, seen: SiteRanges) -> UniformQuantizer:
        """Build the quantizer whose grid reaches both ends of what was found."""
        return cls.joined(spec, [seen], one_scale=False)[0]

    @classmethod
    def joined(cls, spec: ActivationSpec, seen: Sequence[SiteRanges], one_scale: bool) -> list[UniformQuantizer]:
        """Build the quantizers of sites that share a zero point, and the largest scale of all with ``one_scale``.

        With zero points of the channels' own (:attr:`ActivationSpec.zeros`) it is engines that see them share one.
        """
        grids = joint_grids(spec, seen, one_scale)
        return [cls(spec.bits, *grid, site.sizes, site.learns) for grid, site in zip(grids, seen, strict=True)]

    @property
    def scale(self) -> Tensor:
        """Scales, ``(branches,)`` float32, positive."""
        return self.log_scale.exp()

    def channel_scale(self) -> Tensor:
        """Scale of every channel, ``(C,)``; ``(1,)`` without branches."""
        if not self.sizes:
            return self.scale
        if len(self.sizes) == sum(self.sizes):
            return self.scale
        sizes = torch.tensor(self.sizes, device=self.log_scale.device)
        return self.scale.repeat_interleave(sizes, output_size=sum(self.sizes))

    def fake_quantize(self, x: Tensor) -> Tensor:
        """``x`` on its grid, same shape and dtype."""
        scale = self.channel_scale().to(x.dtype)
        factor = 1 / math.sqrt(max(1, x.numel() // len(scale)) * self.quant_max)
        zero = self.zero_point.to(x.dtype)
        if not self.sizes:
            return fake_quantize(x, scale, zero, 0, self.quant_max, gradient_factor=factor)
        return fake_quantize(x, scale, zero.expand_as(scale), 0, self.quant_max, x.ndim - 3, factor)

    def share_gradients(self, processes: int) -> None:
        """Let LSQ's factor ``1 / sqrt(N)`` count the elements of the whole batch.

        Adam would hide a factor if such gradients were not as small as its epsilon.
        """
        if self.log_scale.grad is not None:
            self.log_scale.grad /= math.sqrt(processes)

    def qparams(self) -> QParams:
        """Scale ``()``, or ``(C,)`` where there are branches, and the zero point."""
        scale = self.channel_scale().detach().float()
        zero = self.zero_point.detach()
        if self.own_zeros:  # wherever a channel's zero point lies, its codes end at twice the largest at most
            return QParams(scale, torch.full_like(zero[0], self.quant_max), self.quant_max, shift=self.quant_max - zero)
        return QParams(scale if self.sizes else scale.reshape(()), zero.reshape(()), self.quant_max)

    def channel_zero(self) -> Tensor | None:
        """See :meth:`ActivationQuantizer.channel_zero`."""
        return self.zero_point.detach() if self.own_zeros else None

    def regrid(self, scale: Tensor | None = None, zero: Tensor | None = None) -> UniformQuantizer:
        """The same grid, with a scale for every channel where ``scale`` is given, for good."""
        found = self.scale.detach() if scale is None else scale
        sizes = () if scale is None else (1,) * len(scale)
        return self._with_scale(found, sizes, int(self.zero_point) if zero is None else zero)

    def _with_scale(self, scale: Tensor, sizes: Sequence[int], zero: int | Tensor) -> UniformQuantizer:
        """The same codes with other scales, for good."""
        return UniformQuantizer(self.bits, scale, zero, sizes, learns=False)

    def extra_repr(self) -> str:
        """Bits, scales and zero point, as ``print(network)`` shows them."""
        values = ", ".join(f"{s:.4g}" for s in self.scale.tolist())
        zeros = [int(zero) for zero in self.zero_point]
        return f"bits={self.bits}, scale=[{values}], zero_point={zeros if self.own_zeros else zeros[0]}"


def joint_grids(spec: ActivationSpec, seen: Sequence[SiteRanges], one_scale: bool) -> list[tuple[Tensor, int | Tensor]]:
    """Choose the grids of sites that layers read side by side.

    Args:
        spec: Choices that hold for all of them.
        seen: What the observers found, site by site.
        one_scale: Whether they share the largest scale of all as well.

    Returns:
        Scales of every site, ``(ranges of the site,)`` float32, and the zero point that all share, or every channel's
        own (:attr:`ActivationSpec.own_zeros`), of the shape of the scales.
    """
    pairs = [found[:2] for site in seen for found in site.ranges]
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in zip(*pairs, strict=True))
    top, counts = spec.code_range[1], [len(site.ranges) for site in seen]
    zeros: Sequence[int | Tensor]
    if spec.own_zeros and all(site.sizes and max(site.sizes) == 1 for site in seen):
        scale, zero = choose_qparams(low, high, 0, top)
        zeros = zero.float().split(counts)
    else:
        scale, shared = choose_shared_qparams(low, high, top, not spec.asymmetric, spec.signed)
        zeros = [shared] * len(seen)
    scale = scale.float()
    if one_scale:
        scale = scale.max().expand(len(scale))
    scales = zip(scale.split(counts), seen, strict=True)
    share = 1.0 if spec.migration is None else spec.migration  # nobody looked at the weights
    carried = [one if site.learns else migrated(one, share) for one, site in scales]
    return list(zip(carried, zeros, strict=True))


def migrated(scale: Tensor, strength: float) -> Tensor:
    """Take back some of the difficulty that channels' own scales move into the weights that carry them.

    As in SmoothQuant (Xiao et al., ICML 2023): a channel's scale becomes ``s^m max(s)^(1 - m)``, which still reaches
    what it reached, in coarser steps.

    Args:
        scale: Scale of every channel, ``(C,)``, positive.
        strength: ``m`` in [0, 1]: 1 keeps the scales, 0 gives all channels the largest.
    """
    return scale if strength == 1 else scale**strength * scale.max() ** (1 - strength)
