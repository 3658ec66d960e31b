"""What every quantizer of activations and every rounding of weights can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.quant.functional import dequantize
from ptq4vm.quant.quantizers.drop import random_keep
from ptq4vm.quant.spec import ActivationSpec, WeightSpec


class SiteRanges(NamedTuple):
    """What an observer found for one site.

    Attributes:
        ranges: ``(low, high)`` with ``low <= 0 <= high``, one for each scale of the site. Observers that search more
            than a range add it behind: the relaxation coefficient of HTDQ.
        sizes: Channels that each scale is for (dimension -3), or empty where one is for all.
        learns: False where scales must stay as they are: weights carry them, or other sites share them.
    """

    ranges: Sequence[tuple[float, ...]]
    sizes: tuple[int, ...] = ()
    learns: bool = True


class QParams(NamedTuple):
    """A grid as ONNX's QuantizeLinear has it.

    Attributes:
        scale: ``()``, or ``(C,)`` with one for each channel, float32.
        zero_point: ``()``, integer-valued, float32.
        quant_max: Largest code, at most 255; the smallest is 0.
        table: ``(quant_max + 1,)`` int32: which code a code is replaced by; ``None`` where all stay.
        shift: ``(C,)``, integer-valued, float32: how far every channel's codes are moved up, so that the zero points of
            all come to lie on ``zero_point``; they then end at ``shift`` and ``shift + quant_max``. ``None`` for 0.
    """

    scale: Tensor
    zero_point: Tensor
    quant_max: int
    table: Tensor | None = None
    shift: Tensor | None = None


class ActivationQuantizer(nn.Module, ABC):
    """Rounds activations to what ``bits`` can say, as fake quantization: floats come in and floats go out.

    One class a file, registered in :data:`ptq4vm.quant.registries.QUANTIZERS` under the name that
    :attr:`ptq4vm.quant.spec.ActivationSpec.quantizer` chooses it by. What a checkpoint keeps of it is its
    ``state_dict``, whose names and shapes may depend on :class:`ptq4vm.quant.spec.ActivationSpec` and on
    ``sizes`` alone: loading builds it from arbitrary ranges and then copies the tensors in.

    Args:
        bits: 2 to 8.
        sizes: Channels of each branch when there are several (dimension -3 of the input), else empty.
        learns: False keeps the scales as they are: other tensors or weights depend on them.

    Attributes:
        drop: Probability of letting an element pass unquantized while training (QDrop, Wei et al., ICLR 2022).
        enabled: False lets everything pass, while weights alone are reconstructed.
    """

    def __init__(self, bits: int, sizes: Sequence[int] = (), learns: bool = True) -> None:
        super().__init__()
        self.bits = bits
        self.sizes = tuple(sizes)
        self.learns = learns
        self.drop = 0.0
        self.enabled = True

    @property
    def quant_max(self) -> int:
        """Largest code; the smallest is 0."""
        return 2**self.bits - 1

    @property
    def levels(self) -> int:
        """Largest code, under the name that :attr:`quant_max` had before."""
        return self.quant_max

    @classmethod
    @abstractmethod
    def from_ranges(cls, spec: ActivationSpec, seen: SiteRanges) -> ActivationQuantizer:
        """Build the quantizer of one site from what its observer found."""

    @classmethod
    def joined(cls, spec: ActivationSpec, seen: Sequence[SiteRanges], one_scale: bool) -> Sequence[ActivationQuantizer]:
        """Build the quantizers of sites that layers read side by side: they share a zero point.

        Args:
            spec: Choices that hold for all of them.
            seen: What the observers found, site by site.
            one_scale: Whether they share their scale as well.

        Raises:
            ConfigError: This quantizer has no zero point to share.
        """
        raise cls._no_grid()

    @abstractmethod
    def fake_quantize(self, x: Tensor) -> Tensor:
        """``x`` rounded, same shape and dtype; gradients reach ``x`` and what is learned."""

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x`` (any shape; channels at dimension -3 where there are branches)."""
        if not self.enabled:
            return x
        y = self.fake_quantize(x)
        if self.training and self.drop > 0:
            y = torch.where(random_keep(x, self.drop), x, y)
        return y

    def learned(self) -> list[nn.Parameter]:
        """What an optimizer changes at the rate of scales; empty where nothing may move."""
        return list(self.parameters()) if self.learns else []

    def share_gradients(self, processes: int) -> None:
        """Correct the gradients where a batch was split among processes and each has counted its own elements."""
        return None

    def qparams(self) -> QParams:
        """The grid as integer engines have it, for export and for weights that carry scales.

        Raises:
            ConfigError: The values of this quantizer do not lie on an unsigned grid of 8 bits with even steps.
        """
        raise self._no_grid()

    def channel_scale(self) -> Tensor:
        """Scale of every channel, ``(C,)``; ``(1,)`` where one is for all. Raises as :meth:`qparams` does."""
        return self.qparams().scale.reshape(-1)

    def channel_zero(self) -> Tensor | None:
        """Zero point of every channel, ``(C,)``, where each has its own; ``None`` where all share one."""
        return None

    def regrid(self, scale: Tensor | None = None, zero: Tensor | None = None) -> ActivationQuantizer:
        """A quantizer of its own, whose scales do not learn, for a tensor that this one's codes were moved into.

        Args:
            scale: ``(C,)`` for every channel of that tensor, where they differ.
            zero: ``(C,)``: the zero points, where they differ.

        Raises:
            ConfigError: See :meth:`qparams`.
        """
        raise self._no_grid()

    @classmethod
    def _no_grid(cls) -> ConfigError:
        return ConfigError(
            f"{cls.__name__} has no grid with even steps, which placement=engine and export need: "
            "take method.quantizer.activation.quantizer=uniform"
        )


def per_row(scale: Tensor, weight: Tensor) -> Tensor:
    """Scale ``(C_out,)`` or ``(1,)`` shaped to multiply a weight ``(C_out, ...)``."""
    return scale.view(-1, *[1] * (weight.ndim - 1))


def per_column(factor: Tensor, weight: Tensor) -> Tensor:
    """Factor ``(C_in,)`` shaped to multiply a weight ``(C_out, C_in, ...)``."""
    return factor.view(1, -1, *[1] * (weight.ndim - 2))


class WeightQuantizer(nn.Module, ABC):
    """Rounds weights to a symmetric grid with one scale per output channel or per tensor.

    Whatever decides the rounding, what is left in the end are integer codes:
    :class:`ptq4vm.quant.quantizers.fixed.FixedCodes` is what checkpoints hold and engines run. One class a file,
    registered in :data:`ptq4vm.quant.registries.ROUNDINGS` where a reconstruction may choose it.

    Args:
        bits: 2 to 8.
        scale: ``(C_out,)`` or ``(1,)``, positive.
        factor: ``(C_in,)``, positive: scales of the input's channels that an engine leaves to the weight. What lies
            on the grid is the weight times its factor.
        reduce_range: See :class:`ptq4vm.quant.spec.WeightSpec`.

    Attributes:
        decided: Whether the codes are stored and the float weight is not looked at any more.
    """

    decided = False
    scale: Tensor
    factor: Tensor | None

    def __init__(self, bits: int, scale: Tensor, factor: Tensor | None = None, reduce_range: bool = False) -> None:
        super().__init__()
        self.bits, self.reduce_range = bits, reduce_range
        self.quant_min, self.quant_max = WeightSpec(bits, reduce_range=reduce_range).code_range
        self.register_buffer("scale", scale.detach().float().clone())
        self.register_buffer("factor", None if factor is None else factor.detach().float().clone())

    @classmethod
    def start(cls, weight: Tensor, like: WeightQuantizer) -> WeightQuantizer:
        """Begin with this rounding where another one stands, on the same grid.

        Args:
            weight: The layer's float weight, ``(C_out, ...)``.
            like: Gives bits, scale, factor and range of the codes.
        """
        return cls(like.bits, like.scale, like.factor, like.reduce_range)

    def step(self, weight: Tensor) -> Tensor:
        """Distance between neighbouring values of every weight, broadcastable to ``weight``'s shape."""
        step = per_row(self.scale, weight)
        return step if self.factor is None else step / per_column(self.factor, weight)

    @abstractmethod
    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes of ``weight``, same shape, int8."""

    def forward(self, weight: Tensor) -> Tensor:
        """The dequantized weight, same shape and dtype."""
        return dequantize(self.codes(weight).to(weight.dtype), self.step(weight))

    def learned(self) -> list[nn.Parameter]:
        """What an optimizer changes at the rate of roundings; empty where nothing is learned."""
        return []

    def regularizer(self, beta: float) -> Tensor:
        """What is added to the loss to make the rounding decide, over all weights; scalar, 0 once all have."""
        return self.scale.new_zeros(())

    def extra_repr(self) -> str:
        """Bits and number of scales, as ``print(network)`` shows them."""
        return f"bits={self.bits}, scales={self.scale.numel()}"
