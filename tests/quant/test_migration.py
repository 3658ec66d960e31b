"""How far weights carry channels' scales, where that is chosen by the noise that is expected."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.quant.insert import activation_quantizers_of
from ptq4vm.quant.migration import STRENGTHS, expected_noise
from ptq4vm.quant.placement.plan import Plan, Site
from ptq4vm.quant.placement.wiring import Segment
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec, spec_from_values, spec_values

CHANNELS = 48
SPREAD = torch.tensor([0.02, 0.1, 0.5, 1.0, 4.0, 8.0]).repeat(8)  # reaches of channels that differ much
ALIKE = torch.ones(CHANNELS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured_noise(weight: Tensor, spec: WeightSpec, step: Tensor, seed: int) -> float:
    """Noise over output of a layer whose weight and inputs are rounded, on inputs of :data:`SPREAD`."""
    inputs = randn(4096, CHANNELS, 1, seed=seed) * (SPREAD / 50**0.5)[:, None]
    inputs = inputs.expand(-1, -1, weight[0, 0].numel())
    flat, columns = weight.flatten(2), step[:, None]
    row = (flat * columns).abs().amax((1, 2), keepdim=True) / spec.code_range[1]
    codes = (flat * columns / row).round() * row / columns
    wanted = torch.einsum("nck,ock->no", inputs, flat)
    noise = torch.einsum("nck,ock->no", (inputs / columns).round() * columns, codes) - wanted
    return float(noise.square().mean() / wanted.square().mean())


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 7), st.integers(5, 7), st.sampled_from(STRENGTHS), st.integers(0, 99))
def test_the_expected_noise_is_what_rounding_makes(weight_bits: int, bits: int, share: float, seed: int) -> None:
    weight, spec = randn(64, CHANNELS, 1, 1, seed=seed), WeightSpec(weight_bits)
    step = (SPREAD**share * SPREAD.max() ** (1 - share)) / (2**bits - 1)
    expected, measured = expected_noise(weight, spec, step, SPREAD), measured_noise(weight, spec, step, seed + 1)
    assert measured == pytest.approx(expected, rel=0.4)


def built(bits: int, weight: WeightSpec | None, reach: Tensor, migration: float | None = None) -> Tensor:
    """Scales of a site that one convolution reads."""
    spec = ActivationSpec(bits, granularity="channel", migration=migration)
    network = nn.ModuleDict({"layer": nn.Conv2d(CHANNELS, 8, 1)})
    with torch.no_grad():
        network["layer"].weight.copy_(randn(8, CHANNELS, 1, 1))
    site = Site("site", "site", "output", spec, sizes=(1,) * CHANNELS)
    weights, carriers = ({}, frozenset[str]()) if weight is None else ({"layer": weight}, frozenset({"layer"}))
    plan = Plan(weights, {"site": site}, {"layer": (Segment("site", 0, CHANNELS),)}, carriers=carriers)
    ranges = {"site": [(0.0, float(high)) for high in reach]}
    return activation_quantizers_of(plan, ranges, network)["site"].channel_scale().detach()


def share_of(scale: Tensor) -> float:
    """The strength with which scales of channels of :data:`SPREAD` were made."""
    return float((scale.max() / scale.min()).log() / (SPREAD.max() / SPREAD.min()).log())


def test_whoever_has_fewer_bits_is_spared() -> None:
    spared = {pair: share_of(built(pair[0], WeightSpec(pair[1]), SPREAD)) for pair in ((8, 3), (6, 4), (4, 4), (3, 8))}
    assert spared[8, 3] <= spared[6, 4] <= spared[4, 4]
    assert spared[8, 3] < 0.6 and spared[4, 4] == spared[3, 8] == pytest.approx(1), "activations keep theirs"


@pytest.mark.parametrize(("bits", "weight_bits"), [(8, 3), (8, 4), (6, 4)])
def test_what_is_chosen_is_about_the_best(bits: int, weight_bits: int) -> None:
    weight, spec = randn(8, CHANNELS, 1, 1), WeightSpec(weight_bits)
    noise = {
        share: measured_noise(weight, spec, built(bits, spec, SPREAD, migration=share), seed=1)
        for share in (*STRENGTHS, None)
    }
    assert noise[None] < 1.2 * min(noise.values())


def test_scales_that_no_weight_carries_are_the_channels_own() -> None:
    torch.testing.assert_close(built(8, None, SPREAD), built(8, None, SPREAD, migration=1.0))
    torch.testing.assert_close(built(8, WeightSpec(3), ALIKE), built(8, WeightSpec(3), ALIKE, migration=1.0))


def test_specs_keep_it() -> None:
    spec = QuantSpec(WeightSpec(4), ActivationSpec(8, granularity="channel", migration=None), placement="engine")
    assert spec_from_values(spec_values(spec)) == spec
    with pytest.raises(ConfigError, match=r"migration=2.0: use a share in \[0, 1\], or null"):
        replace(spec.activation, migration=2.0)
