"""Activation quantizer with a learnable scale (LSQ) and optional random drop (QDrop)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptq4vm.quant.quantizers.drop import random_keep


class ActivationQuantizer(nn.Module):
    """Fake-quantizes to ``(clamp(round(x / s) + z, 0, 2^bits - 1) - z) * s``.

    The scale is learned by the straight-through estimator of LSQ (Esser et al., ICLR 2020): its gradient is
    multiplied by ``1 / sqrt(N * levels)``. It is kept as a logarithm, so it stays positive and one learning rate,
    read as a relative change, fits layers of any range. The zero point is an integer constant.

    Args:
        bits: 2 to 8.
        scale: Initial scales, one per branch, positive.
        zero_point: Integer code of the value 0, shared by all branches.
        sizes: Channels of each branch when there are several (dimension -3 of the input), else empty.
        learns: False keeps the scales as they are: other tensors or weights depend on them.

    Attributes:
        drop: Probability of letting an element pass unquantized while training (QDrop, Wei et al., ICLR 2022).
        enabled: False lets everything pass, while weights alone are reconstructed.
    """

    log_scale: nn.Parameter
    zero_point: Tensor

    def __init__(
        self, bits: int, scale: Tensor, zero_point: int, sizes: Sequence[int] = (), learns: bool = True
    ) -> None:
        super().__init__()
        self.bits = bits
        self.levels = 2**bits - 1
        self.sizes = tuple(sizes)
        self.drop = 0.0
        self.enabled = True
        if scale.shape != (max(1, len(self.sizes)),):
            raise ValueError(f"scale has shape {tuple(scale.shape)}, expected one value per branch {self.sizes}")
        self.learns = learns
        self.log_scale = nn.Parameter(scale.detach().float().log(), requires_grad=learns)
        self.register_buffer("zero_point", torch.tensor([float(zero_point)]))

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

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize ``x`` (any shape; channels at dimension -3 where there are branches)."""
        if not self.enabled:
            return x
        scale = self.channel_scale().to(x.dtype)
        gradient_scale = 1 / math.sqrt(max(1, x.numel() // len(scale)) * self.levels)
        # torch's fused kernels: one pass forward and one backward, where composing the operations takes six and more
        if self.sizes:
            zero = self.zero_point.to(x.dtype).expand_as(scale)
            y = torch._fake_quantize_learnable_per_channel_affine(
                x, scale, zero, x.ndim - 3, 0, self.levels, gradient_scale
            )
        else:
            y = torch._fake_quantize_learnable_per_tensor_affine(
                x, scale, self.zero_point.to(x.dtype), 0, self.levels, gradient_scale
            )
        if self.training and self.drop > 0:
            y = torch.where(random_keep(x, self.drop), x, y)
        return y

    def extra_repr(self) -> str:
        """Bits, scales and zero point."""
        values = ", ".join(f"{s:.4g}" for s in self.scale.tolist())
        return f"bits={self.bits}, scale=[{values}], zero_point={int(self.zero_point)}"
