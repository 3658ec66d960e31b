"""Quantize every tensor once, where it is made, as an integer engine stores it for all that read it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import nn

from ptq4vm.quant.placement.input import input_site, is_depthwise
from ptq4vm.quant.placement.plan import Bits, Plan, Site
from ptq4vm.quant.placement.wiring import Segments, trace
from ptq4vm.quant.registries import PLACEMENTS
from ptq4vm.quant.spec import FLOAT_BITS, ActivationSpec, Partition, QuantSpec

BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Hardswish: (-3.0, math.inf),
    nn.Sigmoid: (-7.0, 7.0),
    nn.Tanh: (-3.5, 3.5),
}
"""Of what goes into a function: beyond them its result stays, to within a quarter of an 8-bit code."""


@PLACEMENTS.register("engine")
def where_engines_store(network: nn.Module, partition: Partition, spec: QuantSpec, bits: Bits) -> Plan:
    """One site for every tensor that layers read, with the recurrent states and their gates."""
    wiring = trace(network)
    activations = bits.activations
    inputs = {path: wiring.inputs[path] for path in activations if path in wiring.inputs}
    sites = {
        path: input_site(network, path, partition, activation)
        for path, activation in activations.items()
        if path not in inputs
    }
    readers: dict[str, list[str]] = {}
    for path, segments in inputs.items():
        for segment in segments:
            readers.setdefault(segment.site, []).append(path)
    groups = _joined(inputs)
    members = Counter(groups.values())
    operations = spec.stores == "operations"
    widths = dict.fromkeys(members, 0)
    separate = dict.fromkeys(members, spec.activation.granularity == "channel")
    for site, paths in readers.items():
        group = groups[site]
        widths[group] = max(widths[group], *(activations[path].bits for path in paths))
        joined = members[group] > 1 and spec.activation.granularity in ("branch", "mixed")
        separate[group] |= joined or _reads_depthwise(network, paths, spec.activation)
    for site, count in wiring.channels.items():
        if site in readers:
            group = groups[site]
            own = replace(spec.activation, bits=widths[group])
            sizes = (1,) * count if separate[group] else ()
            sites[site] = Site(site, site, "output", own, sizes, group if members[group] > 1 else "", operations)
        elif (operations or site in wiring.gates) and spec.activation.bits != FLOAT_BITS:
            known = _known_range(network.get_submodule(site), spec.activation) if operations else None
            sites[site] = Site(site, site, "output", spec.activation, known=known)
    if operations:
        for path, function in wiring.results.items():
            if path in activations:
                bounds = None if function is None else BOUNDS.get(type(network.get_submodule(function)))
                sites[f"{path}:result"] = Site(path, path, "output", spec.activation, bounds=bounds)
    regrids = {path: found for path, found in wiring.regrids.items() if all(s.site in sites for s in found)}
    plan = Plan(bits.weights, sites, inputs, regrids)
    carriers = frozenset(
        path
        for path, segments in inputs.items()
        if plan.separate_scales(segments) and not is_depthwise(network.get_submodule(path))
    )
    return replace(plan, carriers=carriers)


def _known_range(function: nn.Module, spec: ActivationSpec) -> tuple[float, float] | None:
    """Range of a gate on whose grid an engine can compute it: 1, and 0 or -1, are codes."""
    if isinstance(function, (nn.Sigmoid, nn.Hardsigmoid)):
        return (0.0, 1.0)
    if isinstance(function, nn.Tanh):
        half = (spec.code_range[1] + 1) // 2
        return (-1.0, half / (half - 1))
    return None


def _reads_depthwise(network: nn.Module, readers: Iterable[str], spec: ActivationSpec) -> bool:
    """Whether a tensor shall have a scale for each channel because a depthwise convolution reads it."""
    wanted = spec.granularity in ("depthwise", "mixed")
    return wanted and any(is_depthwise(network.get_submodule(path)) for path in readers)


def _joined(inputs: Mapping[str, Segments]) -> dict[str, str]:
    """Name of every site's group: sites that some layer reads side by side are in one."""
    groups: dict[str, str] = {}
    for segments in inputs.values():
        names = {groups.setdefault(segment.site, segment.site) for segment in segments}
        first = min(names)
        groups = {site: first if group in names else group for site, group in groups.items()}
    return groups
