"""What to quantize and how: frozen, validated choices. Nothing here touches a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from ptq4vm.errors import ConfigError
from ptq4vm.quant.registries import OBSERVERS, PLACEMENTS, QUANTIZERS, WEIGHT_OBSERVERS

MIN_BITS, MAX_BITS = 2, 8
FLOAT_BITS = 32


def _check_bits(name: str, bits: int) -> None:
    if not isinstance(bits, int) or (bits != FLOAT_BITS and not MIN_BITS <= bits <= MAX_BITS):
        raise ConfigError(f"{name}={bits}: use {MIN_BITS} to {MAX_BITS} bits, or {FLOAT_BITS} for float")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown: use one of {', '.join(choices)}")


@dataclass(frozen=True)
class WeightSpec:
    """Weights: symmetric around zero, codes in ``[-2^(bits-1), 2^(bits-1) - 1]``.

    Attributes:
        bits: 2 to 8, or 32 for float.
        granularity: ``channel`` gives scales of shape ``(C_out,)``, ``tensor`` of shape ``(1,)``.
        observer: How the clipping range is found: ``minmax``, ``mse``, or what
            :data:`ptq4vm.quant.registries.WEIGHT_OBSERVERS` knows besides.
        reduce_range: True leaves half of the codes unused: those that are left fit into a bit less, but are still
            stored in ``bits`` bits (:attr:`QuantSpec.overflow` decides about it, layer by layer).
    """

    bits: int = 8
    granularity: str = "channel"
    observer: str = "mse"
    reduce_range: bool = False

    def __post_init__(self) -> None:
        _check_bits("weight bits", self.bits)
        _check_choice("weight granularity", self.granularity, ("channel", "tensor"))
        _check_choice("weight observer", self.observer, WEIGHT_OBSERVERS.names())

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest integer code."""
        half = 2 ** (self.bits - 1 - self.reduce_range)
        return -half, half - 1


@dataclass(frozen=True)
class ActivationSpec:
    """Activations: unsigned codes in ``[0, 2^bits - 1]`` with an integer zero point.

    Attributes:
        bits: 2 to 8, or 32 for float.
        asymmetric: True lets the zero point follow the observed range. False keeps it at 0 where the tensor is not
            negative and at ``2^(bits-1)`` (a symmetric grid) elsewhere.
        signed: True keeps the zero point at ``2^(bits-1)`` everywhere: less that, codes are signed integers with a zero
            point of 0, and a tensor that is not negative has half of them. Needs ``asymmetric`` to be False.
        granularity: ``tensor`` gives one scale, as published. ``depthwise`` gives the input of a depthwise convolution
            one scale per channel, which an integer engine gets for free: it multiplies the output channel's own
            weight scale. ``branch`` gives one scale to each tensor that a concatenation joins (QVD's channel-range
            integration); an engine then runs the convolution over it as a sum of one convolution per branch.
            ``mixed`` is both. Scales of one input always share its zero point. With placement ``engine``, ``branch``
            gives every channel of joined tensors its own scale, which the weights of the layer behind carry, and
            ``channel`` every channel of every tensor.
        observer: ``minmax``, ``percentile``, ``mse``, ``tdscore``, or what :data:`ptq4vm.quant.registries.OBSERVERS`
            knows besides. ``mse`` reaches further above 4 bits where ``granularity`` is ``channel``.
        percentile: Share of values inside the range, for ``percentile``.
        quantizer: ``uniform``, ``htdq``, or what :data:`ptq4vm.quant.registries.QUANTIZERS` knows besides.
        relaxation: Coefficient of ``htdq`` where the observer does not search it, as a share of the range, positive.
        grid_bits: Bits of the even grid on which the levels of ``htdq`` lie, 8 to 16. An engine stores 8; with more, a
            quantizer of 8 bits is logarithmic too, which no engine runs.
        temporal_weight: What a change of TDScore weighs beside the relative squared error, for ``tdscore``, at least 0.
        migration: How far scales of channels that weights carry differ, in [0, 1]: 1 follows the channels, 0 gives all
            the same; see :func:`ptq4vm.quant.quantizers.uniform.migrated`. ``None`` chooses for every tensor, by the
            noise that is expected (:mod:`ptq4vm.quant.migration`).
        zeros: ``shared``: scales of one tensor share its zero point. ``channel``: where every channel has its own
            scale, it has its own zero point too, below 8 bits and with asymmetric even steps; elsewhere they are shared
            all the same. An engine stores such codes moved up to one zero point, in its 8 bits.
    """

    bits: int = 8
    asymmetric: bool = True
    granularity: str = "tensor"
    observer: str = "mse"
    percentile: float = 0.9999
    quantizer: str = "uniform"
    relaxation: float = 0.3
    grid_bits: int = 8
    temporal_weight: float = 1.0
    migration: float | None = 1.0
    zeros: str = "shared"
    signed: bool = False

    def __post_init__(self) -> None:
        _check_bits("activation bits", self.bits)
        _check_choice("activation granularity", self.granularity, ("tensor", "depthwise", "branch", "mixed", "channel"))
        _check_choice("activation observer", self.observer, OBSERVERS.names())
        _check_choice("activation quantizer", self.quantizer, QUANTIZERS.names())
        _check_choice("activation zeros", self.zeros, ("shared", "channel"))
        if self.signed and self.asymmetric:
            raise ConfigError("activation signed=true has its zero point in the middle: add asymmetric=false")
        if not 0.5 < self.percentile <= 1:
            raise ConfigError(f"activation percentile={self.percentile}: use a share in (0.5, 1]")
        if not self.relaxation > 0:
            raise ConfigError(f"activation relaxation={self.relaxation}: use a positive share of the range")
        if self.migration is not None and not 0 <= self.migration <= 1:
            raise ConfigError(f"activation migration={self.migration}: use a share in [0, 1], or null")
        if not self.temporal_weight >= 0:
            raise ConfigError(f"activation temporal_weight={self.temporal_weight}: use 0 or a positive number")
        if not isinstance(self.grid_bits, int) or not MAX_BITS <= self.grid_bits <= 16:
            raise ConfigError(f"activation grid_bits={self.grid_bits}: use {MAX_BITS} to 16")

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest integer code of the grid on which the quantizer's levels lie."""
        return 0, 2 ** (max(self.bits, self.grid_bits) if self.quantizer == "htdq" else self.bits) - 1

    @property
    def own_zeros(self) -> bool:
        """Whether channels with scales of their own have zero points of their own: at 8 bits there is no room."""
        known = self.asymmetric and self.quantizer == "uniform"
        return self.zeros == "channel" and known and self.bits < MAX_BITS

    @property
    def largest_code(self) -> int:
        """The largest code that an engine may store; the smallest is 0."""
        return (2 if self.own_zeros else 1) * self.code_range[1]


Spec = TypeVar("Spec", WeightSpec, ActivationSpec)


def with_bits(spec: Spec, bits: int) -> Spec:
    """The same choices at other bits; what is float stays float."""
    return spec if spec.bits == FLOAT_BITS else replace(spec, bits=bits)


@dataclass(frozen=True)
class QuantSpec:
    """All choices for one network.

    Attributes:
        weight: Default for weights.
        activation: Default for activations.
        placement: ``input`` quantizes every layer's input, so that sums, products and concatenations are covered.
            ``output`` quantizes every layer's output after its activation function, as PTQ4VM publishes it.
            ``engine`` quantizes every tensor once, where it is made, for all that read it, with the recurrent states
            and their gates: what an integer engine runs without going back to float.
        stores: What an engine stores as integers, with placement ``engine``. ``layers``: what layers read. It goes on
            in float from a convolution to the sum, product or function behind it. ``operations``: the result of
            every operation, for an engine whose integer operations all end in integers. Joined tensors then have one
            scale each, which the weights carry.
        edge_bits: Bits (weights and activations) of the layers in :attr:`Partition.edge_layers`, the first and last.
        overflow: Which CPUs must compute the integers exactly. ``safe``: all; 8-bit weights that meet 8-bit activations
            keep to codes in [-64, 63], so that no sum of two products leaves 16 bits (:mod:`ptq4vm.quant.overflow`).
            ``vnni``: those with VNNI; weights use all of their codes.
        weight_bits: Bits of single layers' weights, by the layer's path; the others have those of ``weight``.
        activation_bits: Bits of single sites, by the site's path (:class:`ptq4vm.quant.placement.plan.Plan`). Sites
            that layers read side by side take the largest of theirs.
    """

    weight: WeightSpec = field(default_factory=WeightSpec)
    activation: ActivationSpec = field(default_factory=ActivationSpec)
    placement: str = "input"
    edge_bits: int = 8
    stores: str = "layers"
    overflow: str = "safe"
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    activation_bits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            for path, bits in getattr(self, name).items():
                _check_bits(f"{name}.{path}", bits)
        _check_choice("placement", self.placement, PLACEMENTS.names())
        _check_choice("stores", self.stores, ("layers", "operations"))
        if self.stores == "operations" and (self.placement, self.activation.granularity) != ("engine", "tensor"):
            raise ConfigError("stores=operations needs placement=engine and activation granularity=tensor")
        _check_bits("edge_bits", self.edge_bits)
        _check_choice("overflow", self.overflow, ("safe", "vnni"))

    @property
    def is_float(self) -> bool:
        """True when nothing is quantized (``bits=fp32``)."""
        return self.weight.bits == FLOAT_BITS and self.activation.bits == FLOAT_BITS

    @property
    def label(self) -> str:
        """``W4A4``, or ``FP32`` where nothing is quantized: for tables and pictures."""
        return "FP32" if self.is_float else f"W{self.weight.bits}A{self.activation.bits}"


_WRITTEN = {"asymmetric": "affine"}
"""Names that files and fingerprints keep, so that those of earlier versions are not taken for others."""


def spec_values(spec: QuantSpec) -> dict[str, Any]:
    """All choices as plain values, as files and fingerprints have them; :func:`spec_from_values` reads them.

    Fields keep the names that the first files had, and a choice that came later is left out where it is the default.
    """
    values = asdict(spec)
    activation = {_WRITTEN.get(key, key): value for key, value in values["activation"].items()}
    for key in ("quantizer", "relaxation", "grid_bits", "temporal_weight", "migration", "zeros", "signed"):
        if activation[key] == getattr(ActivationSpec, key):
            del activation[key]
    for key in ("weight_bits", "activation_bits"):
        if not values[key]:
            del values[key]
    return {**values, "activation": activation}


def spec_from_values(values: Mapping[str, Any]) -> QuantSpec:
    """The choices that :func:`spec_values` gave.

    Raises:
        ConfigError: A value is out of range.
        KeyError: ``weight`` or ``activation`` is missing.
        TypeError: A key is unknown.
    """
    fields = {written: name for name, written in _WRITTEN.items()}
    activation = {fields.get(key, key): value for key, value in values["activation"].items()}
    parts = {"weight": WeightSpec(**values["weight"]), "activation": ActivationSpec(**activation)}
    return QuantSpec(**{**values, **parts})


@dataclass(frozen=True)
class Partition:
    """How a network is cut up, by module path. Patterns (``decoder.decode*``) expand in definition order.

    Attributes:
        blocks: Blocks to reconstruct, in topological order. Each is called once in the forward of a clip.
        float_modules: Subtrees that stay float and unfolded.
        edge_layers: Layers that take :attr:`QuantSpec.edge_bits`, and factors of products of activations
            (:class:`ptq4vm.ops.junction.Operand`) that do.
        branches: For layers whose input is a concatenation, the channel counts of what is joined; their scales may
            then differ (``granularity: branch``).
    """

    blocks: tuple[str, ...]
    float_modules: tuple[str, ...] = ()
    edge_layers: tuple[str, ...] = ()
    branches: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
