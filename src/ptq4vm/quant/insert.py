"""From a folded float network to one with quantizers: observe ranges, swap layers by type."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.quant.layers import QuantActivation, QuantLayer, quant_layer
from ptq4vm.quant.migration import strength
from ptq4vm.quant.observers import JointObserver, Observer, Range, activation_observer, weight_scale
from ptq4vm.quant.partition import QUANTIZABLE
from ptq4vm.quant.placement.plan import Plan, Site
from ptq4vm.quant.quantizers.base import ActivationQuantizer, SiteRanges, WeightQuantizer, per_column
from ptq4vm.quant.quantizers.nearest import Nearest
from ptq4vm.quant.registries import OBSERVERS, QUANTIZERS
from ptq4vm.quant.segments import segment_scales, segment_zeros
from ptq4vm.quant.spec import WeightSpec


def observe(network: nn.Module, plan: Plan, run: Callable[[], None], seed: int = 0) -> dict[str, list[Range]]:
    """Run the float network, let every site's observer see its tensors, and find the ranges.

    The network is not changed.

    Args:
        network: Folded float network.
        plan: Says which tensors to look at.
        run: Feeds calibration clips through ``network``.
        seed: Seeds the observers' sampling.

    Returns:
        ``(low, high)`` of every group of channels with a scale of its own (one where there are none), by layer path.
    """
    observed = {path: site for path, site in plan.sites.items() if site.known is None}
    observers = _observers(observed, seed)
    with torch.no_grad(), watched(network, observed, lambda path, tensor: observers[path].see(tensor)):
        run()
    return {path: observers[path].ranges() if site.known is None else [site.known] for path, site in plan.sites.items()}


@contextmanager
def watched(network: nn.Module, sites: Mapping[str, Site], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Let ``see`` be called with a site's path and its tensor whenever the float network makes it."""
    with ExitStack() as hooks:
        for path, site in sites.items():
            module, tell = network.get_submodule(site.module), partial(see, path)
            if site.side == "input":
                hooks.enter_context(module.register_forward_pre_hook(lambda m, args, tell=tell: tell(args[0])))
            else:
                hooks.enter_context(module.register_forward_hook(lambda m, args, out, tell=tell: tell(out)))
        yield


class _SiteObserver:
    """Feeds one site's tensors to its observers: one for each branch, or one for all that share a zero point.

    Args:
        site: To look at.
        seed: Of the sampling.
        joint: The observer of the site's group, and the site's first row in it.
    """

    def __init__(self, site: Site, seed: int, joint: tuple[JointObserver, int] | None = None) -> None:
        self._sizes = site.sizes
        self._bounds = site.bounds
        spec = site.spec
        self._joint: JointObserver | None = joint[0] if joint else None
        self._first = joint[1] if joint else 0
        self._parts: list[Observer] = []
        if self._joint is None and site.sizes:
            self._joint = OBSERVERS[spec.observer].joint(spec, len(site.sizes), seed, relative=False)
        if self._joint is None:
            self._parts = [activation_observer(spec, seed) for _ in site.sizes or (0,)]

    def see(self, tensor: Tensor) -> None:
        """Take in one tensor, channels at dimension -3 where there are branches."""
        if self._bounds is not None:
            tensor = tensor.clamp(*self._bounds)
        parts = tensor.split(self._sizes, dim=-3) if self._sizes else (tensor,)
        if self._joint is not None:
            self._joint.observe(parts, self._first)
            return
        for observer, part in zip(self._parts, parts, strict=True):
            observer.observe(part)

    def ranges(self) -> list[Range]:
        """Range of each branch."""
        if self._joint is None:
            return [observer.range() for observer in self._parts]
        return list(self._joint.ranges())[self._first : self._first + max(1, len(self._sizes))]


def _observers(sites: Mapping[str, Site], seed: int) -> dict[str, _SiteObserver]:
    """One observer for each site; those of a group search their zero point together."""
    groups: dict[str, list[str]] = {}
    for path, site in sites.items():
        if site.group:
            groups.setdefault(site.group, []).append(path)
    joints: dict[str, tuple[JointObserver, int]] = {}
    for paths in groups.values():
        rows = [max(1, len(sites[path].sizes)) for path in paths]
        spec = sites[paths[0]].spec
        shared = OBSERVERS[spec.observer].joint(spec, sum(rows), seed, relative=True)
        if shared is not None:
            joints |= {path: (shared, first) for path, first in zip(paths, accumulate([0, *rows]), strict=False)}
    return {path: _SiteObserver(site, seed, joints.get(path)) for path, site in sites.items()}


def activation_quantizers_of(
    plan: Plan, ranges: Mapping[str, list[Range]], network: nn.Module | None = None
) -> dict[str, ActivationQuantizer]:
    """Build every site's quantizer; the sites of a group share their zero point and keep their scales for good.

    Args:
        plan: Says which quantizers there are.
        ranges: Observed ``(low, high)`` per branch, by site.
        network: The float network, whose weights decide how far they carry channels' scales where the choice of
            ``migration`` leaves that open.

    Raises:
        ConfigError: A site was not observed.
    """
    sites = plan.sites
    found: dict[str, ActivationQuantizer] = {}
    groups: dict[str, list[str]] = {}
    for path, site in sites.items():
        if path not in ranges:
            raise ConfigError(f"layer {path!r} has no observed range: the calibration clips never reached it")
        groups.setdefault(site.group or path, []).append(path)
    for paths in groups.values():
        seen = [SiteRanges(ranges[path], sites[path].sizes, not plan.frozen(path)) for path in paths]
        build = partial(_joined, sites[paths[0]], seen)
        share = sites[paths[0]].spec.migration
        if share is None and network is not None:
            share = strength(plan, paths, ranges, build, network)
        built = build(share)
        found.update(zip(paths, built, strict=True))
    return {path: found[path] for path in sites}


def _joined(first: Site, seen: Sequence[SiteRanges], migration: float | None) -> Sequence[ActivationQuantizer]:
    """Quantizers of the sites of ``first``'s group, with so much of their channels' scales in the weights."""
    spec, kind = replace(first.spec, migration=migration), QUANTIZERS[first.spec.quantizer]
    if first.group:  # layers that read them side by side know one scale, unless their weights carry several
        return kind.joined(spec, seen, one_scale=not first.sizes and not first.own_scale)
    return [kind.from_ranges(spec, seen[0])]


def swap(network: nn.Module, plan: Plan, ranges: dict[str, list[Range]]) -> nn.Module:
    """Copy a folded float network with every planned layer replaced by its quantized counterpart.

    Args:
        network: Folded float network; not changed.
        plan: From :func:`make_plan`.
        ranges: Observed ``(low, high)`` per branch, by layer path, for every site.

    Returns:
        The quantized network in eval mode, on the float one's device, weights rounded to nearest; no parameter
        requires gradients but the activation scales.

    Raises:
        ConfigError: A site was not observed.
    """
    quantized = copy.deepcopy(network).eval().requires_grad_(False)
    device = next(quantized.parameters()).device
    quantizers = {
        path: quantizer.to(device) for path, quantizer in activation_quantizers_of(plan, ranges, network).items()
    }
    readers = [s.layer for s in plan.sites.values() if isinstance(network.get_submodule(s.layer), QUANTIZABLE)]
    for path in dict.fromkeys([*plan.weights, *readers]):
        new = quant_layer(quantized.get_submodule(path)).requires_grad_(False)
        new.reads = plan.inputs.get(path, ())
        if path in plan.weights:
            factor = segment_scales(quantizers, new.reads) if path in plan.carriers else None
            new.weight_quantizer = _weight_quantizer(new.weight, plan.weights[path], factor)
            new.harden()
        quantized.set_submodule(path, new)
    for path, site in plan.sites.items():
        _insert(quantized, site, quantizers[path])
    for path, segments in plan.regrids.items():
        scales = segment_scales(quantizers, segments) if plan.separate_scales(segments) else None
        regrid = quantizers[segments[0].site].regrid(scales, segment_zeros(quantizers, segments))
        quantized.set_submodule(path, QuantActivation(quantized.get_submodule(path), regrid))
    return quantized.to(device).eval()


def _weight_quantizer(weight: Tensor, spec: WeightSpec, factor: Tensor | None) -> WeightQuantizer:
    scaled = weight if factor is None else weight * per_column(factor, weight)
    return Nearest(spec.bits, weight_scale(scaled, spec), factor, spec.reduce_range)


def _insert(network: nn.Module, site: Site, quantizer: ActivationQuantizer) -> None:
    module = network.get_submodule(site.module)
    if site.side == "input":
        module.input_quantizer = quantizer
    elif isinstance(module, QuantLayer):
        module.output_quantizer = quantizer
    else:
        network.set_submodule(site.module, QuantActivation(module, quantizer))


def quantized_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """Quantized layers by path, in definition order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantLayer)}


def activation_quantizers(network: nn.Module) -> dict[str, ActivationQuantizer]:
    """Activation quantizers by path, in definition order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, ActivationQuantizer)}


def enable_activations(network: nn.Module, enabled: bool) -> None:
    """Let all activation quantizers of a network act, or let everything pass."""
    for quantizer in activation_quantizers(network).values():
        quantizer.enabled = enabled
