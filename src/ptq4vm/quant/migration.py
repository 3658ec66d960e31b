"""How far weights carry the scales of the channels that they read, chosen by the error that either way leaves.

Scales that follow the channels suit the activations; weights that carry them get columns of very different sizes on one
grid a row. SmoothQuant (Xiao et al., ICML 2023) shares the difficulty by one strength for a network. Here every tensor
has its own, by the output noise that both roundings together are expected to make in the layers that read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ptq4vm.quant.observers import Range
from ptq4vm.quant.placement.plan import Plan
from ptq4vm.quant.quantizers.base import ActivationQuantizer, per_column
from ptq4vm.quant.segments import segment_scales
from ptq4vm.quant.spec import WeightSpec

STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""What is tried; the first that is best is taken."""
_SPREAD = 50.0
"""A channel's range, squared, over its mean square: about the median of RVM's stored tensors (a tenth have less than 7,
a tenth more than 140)."""

Build = Callable[[float], Sequence[ActivationQuantizer]]


def strength(
    plan: Plan,
    paths: Sequence[str],
    ranges: Mapping[str, list[Range]],
    build: Build,
    network: nn.Module,
) -> float:
    """The strength of migration that leaves the least noise in all layers that read some sites side by side.

    Args:
        plan: The plan of the network.
        paths: The sites, which share their grid.
        ranges: What was observed, by site.
        build: Gives the sites' quantizers for a strength.
        network: The float network.

    Returns:
        One of :data:`STRENGTHS`; 1 where no weight carries the scales, or none has fewer bits than the sites: at 4 bits
        each, strengths of 0.75 in a fifth of RVM's tensors made one of six clips of people held out collapse.
    """
    readers = [
        path
        for path in sorted(plan.carriers & plan.weights.keys())
        if all(segment.site in paths for segment in plan.inputs[path])
    ]
    if not readers or plan.sites[paths[0]].spec.bits <= min(plan.weights[path].bits for path in readers):
        return 1.0
    known = [
        (
            network.get_parameter(f"{path}.weight").detach().float().cpu(),
            plan.weights[path],
            plan.inputs[path],
            _reach(plan, ranges, path),
        )
        for path in readers
    ]

    def noise(candidate: float) -> float:
        quantizers = dict(zip(paths, build(candidate), strict=True))
        return sum(
            expected_noise(weight, spec, segment_scales(quantizers, segments), reach)
            for weight, spec, segments, reach in known
        )

    return min(STRENGTHS, key=noise)


def expected_noise(weight: Tensor, spec: WeightSpec, step: Tensor, reach: Tensor) -> float:
    """Power of the noise that rounding is expected to make in a layer's output, over the power of the output.

    A step ``s`` makes a squared error of ``s^2 / 12``, and no more than the value's own square, at which it is lost.
    That of activations goes through the weights; that of weights, which are rounded once they are multiplied by the
    activations' steps, goes through the activations.

    Args:
        weight: Float weight, ``(C_out, C_in, ...)``.
        spec: Bits of its grid, whose step is taken to reach every row's largest value.
        step: Step of every channel that the layer reads, ``(C_in,)``, positive.
        reach: Highest less lowest value of every channel, ``(C_in,)``.
    """
    power = per_column(reach**2 / _SPREAD, weight)
    steps = per_column(step, weight)
    carried = (weight * steps).flatten(1)
    row = carried.abs().amax(1, keepdim=True) / spec.code_range[1]
    of_weights = carried.square().minimum(row.square() / 12).view_as(weight) / steps.square() * power
    of_activations = weight.square() * power.minimum(steps.square() / 12)
    output = (weight.square() * power).sum().clamp_min(torch.finfo(torch.float32).tiny)
    return float((of_activations + of_weights).sum() / output)


def _reach(plan: Plan, ranges: Mapping[str, list[Range]], layer: str) -> Tensor:
    """Highest less lowest value of every channel that a layer reads, ``(C_in,)``."""
    parts = []
    for path, start, stop in plan.inputs[layer]:
        found = torch.tensor([high - low for low, high, *_ in ranges[path]])
        sizes = plan.sites[path].sizes
        spread = found.repeat_interleave(torch.tensor(sizes)) if sizes else found.expand(stop)
        parts.append(spread[start:stop])
    return torch.cat(parts)
