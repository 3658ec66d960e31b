"""Mixed bits under a budget: which layers and stored tensors get more bits, and which fewer, from their sensitivity."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor

from ptq4vm.errors import ConfigError
from ptq4vm.methods.sensitivity import Item, Sensitivity, measure_sensitivity, show
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.budget import allocate, average_bits, extended, least
from ptq4vm.quant.checkpoint import quantized_skeleton, stored_bytes
from ptq4vm.quant.insert import observe, swap
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import FLOAT_BITS, MAX_BITS, MIN_BITS, Partition, QuantSpec

log = logging.getLogger(__name__)

CLIPS, FRAMES = 6, 2
"""How many calibration clips, and frames of each, sensitivity is measured on."""
LIMITS = ("avg_bits", "max_mb", "max_mad")
"""The budgets, of which one may be given."""
_STEP = 1 / 8


@dataclass(frozen=True)
class Budget:
    """What mixed bits may cost; with nothing given, bits are uniform.

    Attributes:
        avg_bits: Bits of a weight, and of a stored value, on average over their number: one number for each of the two,
            or ``(weights, stored values)``.
        max_mb: Size of the packed file in 10^6 bytes. Activations keep the bits of ``bits``.
        max_mad: How much larger the mean absolute difference to the true alpha may be than the float network's, as a
            share (0.05) or as text (``+5%``); the fewest bits that hold it are taken. It is measured on the calibration
            clips with weights rounded to nearest, before anything is learned.
        widths: Bit-widths that may be chosen.
        measured: Bit-widths at which sensitivity is measured; in between and beyond, a bit more halves the error.
        keep: Layers that keep 8 bits whatever the budget, patterns allowed.
        layers: Bits of single layers' weights and of single sites by hand, 32 for float, patterns allowed.
        free_edges: Whether the first and last layers take part; otherwise they keep ``method.quantizer.edge_bits``.
    """

    avg_bits: float | tuple[float, float] | None = None
    max_mb: float | None = None
    widths: tuple[int, ...] = (4, 5, 6, 8)
    measured: tuple[int, ...] = (4,)
    keep: tuple[str, ...] = ()
    layers: Mapping[str, int] = field(default_factory=dict)
    max_mad: float | str | None = None
    free_edges: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.max_mad, str):
            object.__setattr__(self, "max_mad", _share(self.max_mad))
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"budget.{given[0]} and budget.{given[1]} are two budgets: give one")
        for name in given:
            value = getattr(self, name)
            if not all(each > 0 for each in (value if isinstance(value, tuple) else (value,))):
                shown = list(value) if isinstance(value, tuple) else value
                raise ConfigError(f"budget.{name}={shown}: use a positive number")
        for name in ("widths", "measured"):
            values = getattr(self, name)
            if not values or any(not MIN_BITS <= bits <= MAX_BITS for bits in values):
                raise ConfigError(f"budget.{name}={list(values)}: give bit-widths from {MIN_BITS} to {MAX_BITS}")

    @property
    def limits(self) -> bool:
        """Whether there is a budget, so that sensitivity has to be measured."""
        return any(getattr(self, name) is not None for name in LIMITS)

    @property
    def active(self) -> bool:
        """Whether bits may differ from layer to layer."""
        return self.limits or bool(self.keep or self.layers)


def _share(text: str) -> float:
    """A share written as ``+5%``, ``5%`` or ``0.05``. Raises :class:`ConfigError`."""
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise ConfigError(f"budget.max_mad={text!r}: give a share, as +5% or 0.05") from None


def choose_bits(
    teacher: MattingNetwork,
    partition: Partition,
    spec: QuantSpec,
    budget: Budget,
    frames: Tensor,
    seed: int = 0,
    alpha: Tensor | None = None,
) -> QuantSpec:
    """Measure sensitivity and choose every layer's bits under the budget.

    Args:
        teacher: Folded float network, in eval mode.
        partition: The blocks of the network, with patterns resolved.
        spec: Placement, observers and default bits.
        budget: What the bits may cost.
        frames: Calibration clips, ``(N, T, 3, H, W)`` float in [0, 1].
        seed: Seed of the observers.
        alpha: True alphas of the clips, ``(N, T, 1, H, W)`` float in [0, 1], where ``max_mad`` is given.

    Raises:
        ConfigError: The budget cannot be met.
    """
    widths = budget.measured if budget.limits else ()
    found = measure_sensitivity(teacher, partition, spec, looked_at(frames), widths, seed, budget.free_edges)
    if budget.avg_bits is not None:
        chosen = within_average(spec, budget, found, budget.avg_bits)
    elif budget.max_mb is not None:
        codes = sum(item.bits * item.elements for item in found.weights.values()) / 8
        rest = stored_bytes(quantized_skeleton(teacher, partition, spec)) - codes
        chosen = within_size(spec, budget, found, budget.max_mb * 1e6 - rest)
    elif budget.max_mad is not None:
        if alpha is None:
            raise ConfigError("budget.max_mad needs clips with true alphas")
        judge = _Judge(teacher, partition, frames[:, :FRAMES], alpha[:, :FRAMES], seed)
        chosen = within_error(spec, budget, found, judge)
    else:
        chosen = by_hand(spec, budget, found)
    log.info("mixed bits: %.3f of a weight and %.3f of a stored value on average", *averages(chosen, found))
    return chosen


def looked_at(frames: Tensor) -> Tensor:
    """The few of the calibration clips, ``(N, T, 3, H, W)``, that sensitivity is measured on."""
    return frames[:: max(1, len(frames) // CLIPS), :FRAMES]


def by_hand(spec: QuantSpec, budget: Budget, found: Sensitivity) -> QuantSpec:
    """The choices with what ``keep`` and ``layers`` say.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    patterns = {**dict.fromkeys(budget.keep, MAX_BITS), **budget.layers}
    weights, activations = dict(spec.weight_bits), dict(spec.activation_bits)
    for pattern, bits in patterns.items():
        layers = [path for path in found.weights if fnmatchcase(path, pattern)]
        sites = [m for item in found.activations.values() for m in item.members if fnmatchcase(m, pattern)]
        if not layers and not sites:
            raise ConfigError(f"budget: {pattern!r} matches no layer and no stored tensor; see ptq4vm sensitivity")
        weights |= dict.fromkeys(layers, bits)
        activations |= dict.fromkeys(sites, bits)
    return replace(spec, weight_bits=weights, activation_bits=activations)


def within_average(
    spec: QuantSpec, budget: Budget, found: Sensitivity, avg_bits: float | tuple[float, float]
) -> QuantSpec:
    """The choices with the least error at ``avg_bits`` bits, of weights and of stored values each, or of either.

    Raises:
        ConfigError: Not even the smallest widths fit.
    """
    spec = by_hand(spec, budget, found)
    of_weights, of_values = avg_bits if isinstance(avg_bits, tuple) else (avg_bits, avg_bits)
    weights = _within(found.weights, spec.weight_bits, budget, of_weights)
    sites = _within(found.activations, spec.activation_bits, budget, of_values)
    return _with_bits(spec, found, weights, sites)


def within_size(spec: QuantSpec, budget: Budget, found: Sensitivity, code_bytes: float) -> QuantSpec:
    """The choices with the least error whose weights' codes take no more than ``code_bytes`` bytes.

    Raises:
        ConfigError: Not even the smallest widths fit, or all weights are float.
    """
    if not found.weights:
        raise ConfigError("budget.max_mb chooses bits of weights, and all weights are float: give bits=wXaY")
    spec = by_hand(spec, budget, found)
    total = sum(item.elements for item in found.weights.values())
    weights = _within(found.weights, spec.weight_bits, budget, 8 * code_bytes / total)
    return _with_bits(spec, found, weights, {})


def within_error(spec: QuantSpec, budget: Budget, found: Sensitivity, judge: Callable[[QuantSpec], float]) -> QuantSpec:
    """The choices with the fewest bits, of weights and of stored values alike, that ``judge`` lets pass.

    Args:
        spec: Placement, observers and default bits.
        budget: With ``max_mad`` as a share.
        found: What every item costs.
        judge: Gives the share by which a network with some choices is worse than the float one.

    Raises:
        ConfigError: Not even the largest widths are good enough.
    """
    assert isinstance(budget.max_mad, float)
    limit, top = budget.max_mad, max(budget.widths)
    tried: dict[float, float] = {}

    def holds(bits: float) -> bool:
        tried[bits] = judge(within_average(spec, budget, found, bits))
        log.info("mixed bits: %.3f on average cost %+.2f%% of MAD", bits, 100 * tried[bits])
        return tried[bits] <= limit

    if not holds(top):
        raise ConfigError(
            f"budget.max_mad={limit:+.2%}: even {top} bits cost {tried[top]:+.2%} on these clips; allow more"
        )
    bits = least(holds, _fewest(by_hand(spec, budget, found), budget, found), top, _STEP)
    return within_average(spec, budget, found, bits)


def _fewest(spec: QuantSpec, budget: Budget, found: Sensitivity) -> float:
    """The smallest average, of weights and of stored values each, that can be chosen."""
    kinds = ((found.weights, spec.weight_bits), (found.activations, spec.activation_bits))
    return max(
        average_bits({name: min(errors) for name, errors in _errors(items, fixed, budget).items()}, _elements(items))
        for items, fixed in kinds
        if items
    )


@dataclass(frozen=True)
class _Judge:
    """Measures how much worse a network is than the float one, weights rounded to nearest."""

    teacher: MattingNetwork
    partition: Partition
    frames: Tensor
    alpha: Tensor
    seed: int

    @torch.no_grad()
    def __call__(self, spec: QuantSpec) -> float:
        """Growth of MAD as a share of the float network's."""
        plan = make_plan(self.teacher, self.partition, spec)
        ranges = observe(self.teacher, plan, partial(show, self.teacher, self.frames), self.seed)
        network = swap(self.teacher, plan, ranges)
        assert isinstance(network, MattingNetwork)
        before, after = (_error_of(each, self.frames, self.alpha) for each in (self.teacher, network))
        return after / max(before, 1e-12) - 1


def _error_of(network: MattingNetwork, frames: Tensor, alpha: Tensor) -> float:
    """Mean absolute difference to the true alpha, in [0, 1]."""
    parts = [
        (network.matte(clip).alpha - true).abs().mean()
        for clip, true in zip(frames.split(1), alpha.split(1), strict=True)
    ]
    return float(torch.stack(parts).mean())


def averages(spec: QuantSpec, found: Sensitivity) -> tuple[float, float]:
    """Bits of a weight and of a stored value, on average over their number."""
    weights = {path: spec.weight_bits.get(path, item.bits) for path, item in found.weights.items()}
    sites = {
        name: max(spec.activation_bits.get(member, item.bits) for member in item.members)
        for name, item in found.activations.items()
    }
    return tuple(  # type: ignore[return-value]
        average_bits(bits, _elements(items)) if items else float(FLOAT_BITS)
        for bits, items in ((weights, found.weights), (sites, found.activations))
    )


def _within(items: Mapping[str, Item], fixed: Mapping[str, int], budget: Budget, avg_bits: float) -> dict[str, int]:
    """Bits of every item, none where all is float."""
    return allocate(_errors(items, fixed, budget), _elements(items), avg_bits) if items else {}


def _elements(items: Mapping[str, Item]) -> dict[str, float]:
    return {name: item.elements for name, item in items.items()}


def _errors(items: Mapping[str, Item], fixed: Mapping[str, int], budget: Budget) -> dict[str, dict[int, float]]:
    """Squared errors of every width that an item may take: one width where it is fixed.

    Rounding errors of different layers are all but independent, so it is their squares that add up. With plain errors
    the mean of four people held out was 1.30 times FP32's MAD at 4.5 bits, with squares 1.25, each of them less.
    """
    found: dict[str, dict[int, float]] = {}
    for name, item in items.items():
        chosen = {fixed[member] for member in item.members if member in fixed}
        if chosen:
            found[name] = {max(chosen): 0.0}
        else:
            errors = extended(item.errors, budget.widths) if item.errors else {item.bits: 0.0}
            found[name] = {bits: error**2 for bits, error in errors.items()}
    return found


def _with_bits(spec: QuantSpec, found: Sensitivity, weights: Mapping[str, int], sites: Mapping[str, int]) -> QuantSpec:
    """The choices with bits of their own where these are not what an item has anyway."""
    own = {path: bits for path, bits in weights.items() if bits != found.weights[path].bits}
    members = {
        member: bits
        for name, bits in sites.items()
        if bits != found.activations[name].bits
        for member in found.activations[name].members
    }
    return replace(spec, weight_bits={**spec.weight_bits, **own}, activation_bits={**spec.activation_bits, **members})
