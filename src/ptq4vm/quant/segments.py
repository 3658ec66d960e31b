"""Grids of what a layer reads, whose channels come from one site or from several."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ptq4vm.quant.placement.wiring import Segments
from ptq4vm.quant.quantizers.base import ActivationQuantizer


def segment_scales(quantizers: Mapping[str, ActivationQuantizer], segments: Segments) -> Tensor:
    """Scale of every channel that a layer reads, ``(C_in,)`` float32."""
    parts = []
    for site, start, stop in segments:
        scale = quantizers[site].channel_scale().detach()
        parts.append(scale[start:stop] if len(scale) > 1 else scale.expand(stop - start))
    return torch.cat(parts)


def segment_zeros(quantizers: Mapping[str, ActivationQuantizer], segments: Segments) -> Tensor | None:
    """Zero point of every channel of a tensor made of segments, ``(C,)``; ``None`` where they share one."""
    found = [(quantizers[site].channel_zero(), start, stop) for site, start, stop in segments]
    parts = [zero[start:stop] for zero, start, stop in found if zero is not None]
    return torch.cat(parts) if parts else None
