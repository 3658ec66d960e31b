"""What a quantized network costs: multiply-accumulates, bit operations and stored bytes, counted and as published."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ptq4vm.evaluation.products import count_products
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import stored_bytes
from ptq4vm.quant.partition import QUANTIZABLE, layers
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import FLOAT_BITS, Partition, QuantSpec

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Cost:
    """Cost of one frame, and of the file.

    Attributes:
        gmacs: Multiply-accumulates of all convolutions and linear layers, and of matrix products of two activations
            (attention's), in 10^9.
        bops: Bit operations: each multiply-accumulate counted as weight bits times activation bits, with
            every layer's own bits (first and last at 8, float layers at 32); of two activations, as the bits of one
            times those of the other.
        stored_bytes: Size of a packed file: codes at their bit-width, scales, zero points and biases at 32 bits.
        paper_gflops: Multiply-accumulates, in 10^9, by the convention of PTQ4VM's tables: over the mean of ``32 / W``
            and ``32 / A``, as if every layer had W and A bits.
        paper_mb: The float network's size in 10^6 bytes over the same mean, which is no size of weights: at W4A8 they
            take an eighth.
    """

    gmacs: float
    bops: int
    stored_bytes: int
    paper_gflops: float
    paper_mb: float


def count_macs(network: MattingNetwork, size: tuple[int, int], downsample_ratio: float = 1.0) -> dict[str, int]:
    """Multiply-accumulates of every convolution and linear layer for one frame, by path.

    Args:
        network: The network in eval mode; it is run once.
        size: ``(H, W)`` pixels.
        downsample_ratio: Size at which the network itself runs, as a fraction of the frame's.
    """
    counts: dict[str, int] = {}

    def count(path: str, weights: int, layer: nn.Module, inputs: object, output: Tensor) -> None:
        # one multiply-accumulate per output value and weight of its filter
        counts[path] = counts.get(path, 0) + output.numel() * weights

    frame = torch.zeros(1, 1, 3, *size, device=next(network.parameters()).device)
    with ExitStack() as hooks, torch.no_grad():
        for path, module in network.named_modules():
            if isinstance(module, QUANTIZABLE):
                hooks.enter_context(module.register_forward_hook(partial(count, path, module.weight[0].numel())))
        network.matte(frame, downsample_ratio=downsample_ratio)
    return counts


def measure_cost(
    network: MattingNetwork,
    teacher: MattingNetwork,
    partition: Partition,
    spec: QuantSpec,
    size: tuple[int, int],
    downsample_ratio: float = 1.0,
) -> Cost:
    """Cost of a quantized network.

    Args:
        network: The quantized network, or the folded float network for ``bits=fp32``.
        teacher: The folded float network.
        partition: The network's blocks and float modules, patterns resolved.
        spec: The choices that ``network`` was quantized with.
        size: ``(H, W)`` of a frame in pixels.
        downsample_ratio: Size at which the network itself runs, as a fraction of the frame's.
    """
    macs = count_macs(teacher, size, downsample_ratio)
    plan = make_plan(teacher, partition, spec)
    bits = {
        path: (
            plan.weights[path].bits if path in plan.weights else FLOAT_BITS,
            plan.activation_bits(path),
        )
        for path in layers(teacher, partition)
    }
    bops = sum(count * math.prod(bits.get(path, (FLOAT_BITS, FLOAT_BITS))) for path, count in macs.items())
    products = count_products(teacher, size, downsample_ratio)
    bops += sum(count * math.prod(map(plan.operand_bits, factors)) for factors, count in products.items())
    total = (sum(macs.values()) + sum(products.values())) / 1e9
    divisor = (FLOAT_BITS / spec.weight.bits + FLOAT_BITS / spec.activation.bits) / 2
    stored = float_bytes(network) if spec.is_float else stored_bytes(network)
    return Cost(total, bops, round(stored), total / divisor, float_bytes(teacher) / 1e6 / divisor)


def float_bytes(network: nn.Module) -> int:
    """Size of a network's parameters at 32 bits each, in bytes; statistics of batch norms are left out."""
    state = network.state_dict()
    return sum(4 * tensor.numel() for key, tensor in state.items() if not key.endswith(_STATISTICS))
