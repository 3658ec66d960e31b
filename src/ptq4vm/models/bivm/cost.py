"""What a binary network costs by the convention of the papers on them (BiVM, BiMatting)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.bivm.binarizers.base import RPReLU, SignActivation
from ptq4vm.models.bivm.decoder import DENSITY, SparseConv
from ptq4vm.models.bivm.layers import BinaryConv2d, binary_layers

BITS_AT_ONCE = 64
"""Binary multiply-accumulates that count as one operation: an XNOR and a popcount of a 64-bit word."""
_ELEMENTWISE = (nn.BatchNorm2d, nn.PReLU, nn.ReLU, nn.Hardswish, nn.Hardtanh)


@dataclass(frozen=True)
class BinaryCost:
    """Cost of one frame, and of the file.

    Attributes:
        binary_macs: Multiply-accumulates of bits with bits.
        float_macs: Multiply-accumulates of floats.
        elementwise: Operations that are done once a value: norms, nonlinearities, thresholds, signs.
        bits: How many weights are binary.
        floats: Other parameters; the statistics of batch norms, which fold into their scales, are none.
    """

    binary_macs: float
    float_macs: float
    elementwise: float
    bits: int
    floats: int

    @property
    def gflops(self) -> float:
        """Operations in 10^9, binary multiply-accumulates divided by 64."""
        return (self.binary_macs / BITS_AT_ONCE + self.float_macs + self.elementwise) / 1e9

    @property
    def mb(self) -> float:
        """Size in 2^20 bytes, a bit a binary weight and four bytes each of the other parameters."""
        return (self.bits / 8 + 4 * self.floats) / 2**20


def measure(network: MattingNetwork, size: tuple[int, int], density: float = DENSITY) -> BinaryCost:
    """Count the operations of one frame, in the real modules.

    Args:
        network: In eval mode; it is run once.
        size: ``(H, W)`` pixels.
        density: Share of the mask that is set, in [0, 1]: what sparse convolutions do elsewhere is not counted.
    """
    counts = {"binary": 0.0, "float": 0.0, "elementwise": 0.0}
    sparse = {f"{path}.wide" for path, module in network.named_modules() if isinstance(module, SparseConv)}
    with ExitStack() as hooks, torch.no_grad():
        for path, module in network.named_modules():
            kind, each = _counted(module)
            if kind:
                share = density if path.rpartition(".")[0] in sparse else 1.0
                hooks.enter_context(module.register_forward_hook(partial(_add, counts, kind, share, each)))
        network.matte(torch.zeros(1, 1, 3, *size, device=next(network.parameters()).device))
    bits = sum(layer.weight.numel() for layer in binary_layers(network).values())
    total = sum(parameter.numel() for parameter in network.parameters())
    return BinaryCost(counts["binary"], counts["float"], counts["elementwise"], bits, total - bits)


def _counted(module: nn.Module) -> tuple[str, Callable[[Tensor], int]]:
    """What a module counts as, and its operations by its output; nothing where its children are counted."""
    if isinstance(module, BinaryConv2d):
        return "binary", partial(_times, module.weight[0].numel())
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return "float", partial(_times, module.weight[0].numel())
    if isinstance(module, SignActivation):
        return "elementwise", partial(_times, 1 if module.shift is None else 2)
    if isinstance(module, RPReLU):
        return "elementwise", partial(_times, 2)  # the shifts; its PReLU is counted by itself
    return ("elementwise", partial(_times, 1)) if isinstance(module, _ELEMENTWISE) else ("", partial(_times, 0))


def _times(factor: int, output: Tensor) -> int:
    return factor * output.numel()


def _add(
    counts: dict[str, float],
    kind: str,
    share: float,
    each: Callable[[Tensor], int],
    module: nn.Module,
    inputs: Any,
    output: Tensor,
) -> None:
    counts[kind] += share * each(output)
