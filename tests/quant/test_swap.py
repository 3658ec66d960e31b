from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from networks import RVM_PARTITION, TINY_PARTITION, disc_clips, quantize, tiny_folded
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import activation_quantizers, activation_quantizers_of, observe, quantized_layers, swap
from ptq4vm.quant.layers import QuantActivation, QuantLayer
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import Plan, Site, make_plan
from ptq4vm.quant.quantizers.base import ActivationQuantizer
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec


def _spec(weight: int = 4, activation: int = 4, placement: str = "input", granularity: str = "tensor") -> QuantSpec:
    return QuantSpec(WeightSpec(weight), ActivationSpec(activation, granularity=granularity), placement)


def test_every_rvm_layer_gets_a_site_and_edges_stay_at_eight_bits(rvm: MattingNetwork, clip: Tensor) -> None:
    quantized = quantize(rvm, RVM_PARTITION, _spec(granularity="branch"), clip)
    layers = quantized_layers(quantized)
    assert len(layers) == len(activation_quantizers(quantized)) == 78
    wide = {path for path, layer in layers.items() if layer.input_quantizer.bits == 8}
    assert wide == set(RVM_PARTITION.edge_layers)
    for path, layer in layers.items():
        bits = 8 if path in wide else 4
        assert (layer.weight_quantizer.bits, layer.input_quantizer.bits) == (bits, bits)
        assert isinstance(layer.weight_quantizer, FixedCodes)
        assert layer.input_quantizer.sizes == RVM_PARTITION.branches.get(path, ())
    for path in RVM_PARTITION.float_modules:
        assert not any(isinstance(module, QuantLayer) for module in quantized.get_submodule(path).modules())
    learnable = {name.rpartition(".")[2] for name, p in quantized.named_parameters() if p.requires_grad}
    assert learnable == {"log_scale"}


@pytest.mark.parametrize(
    ("granularity", "branch", "depthwise"), [("depthwise", 0, 15), ("branch", 4, 0), ("mixed", 4, 15)]
)
def test_granularity_decides_which_inputs_have_several_scales(
    rvm: MattingNetwork, granularity: str, branch: int, depthwise: int
) -> None:
    partition = resolve(rvm, RVM_PARTITION)
    sites = make_plan(rvm, partition, _spec(granularity=granularity)).sites
    single = {path: site.sizes for path, site in sites.items() if set(site.sizes) == {1}}
    several = {path for path, site in sites.items() if site.sizes} - single.keys()
    assert (len(several), len(single)) == (branch, depthwise)
    assert several <= set(RVM_PARTITION.branches)
    for path, sizes in single.items():
        assert rvm.get_submodule(path).groups == len(sizes)
    output = make_plan(rvm, partition, _spec(granularity=granularity, placement="output")).sites
    assert not any(site.sizes for site in output.values())


def test_output_placement_comes_after_activation_functions(rvm: MattingNetwork, clip: Tensor) -> None:
    quantized = quantize(rvm, RVM_PARTITION, _spec(placement="output"), clip)
    layers = quantized_layers(quantized)
    assert len(activation_quantizers(quantized)) == 78
    assert all(layer.input_quantizer is None for layer in layers.values())
    after = [path for path, module in quantized.named_modules() if isinstance(module, QuantActivation)]
    assert len(after) + sum(layer.output_quantizer is not None for layer in layers.values()) == 78
    gru = quantized.get_submodule("decoder.decode4.gru")
    assert isinstance(gru.ih[1], QuantActivation) and isinstance(gru.ih[1].function, nn.Sigmoid)
    assert layers["project_mat.conv"].output_quantizer.bits == 8


@pytest.mark.parametrize("placement", ["input", "output"])
@torch.no_grad()
def test_eight_bits_stay_close_to_float(placement: str) -> None:
    network, clips = tiny_folded(), disc_clips()
    quantized = quantize(network, TINY_PARTITION, _spec(8, 8, placement), clips.frames)
    difference = (quantized(clips.frames)[1] - network(clips.frames)[1]).abs().mean()
    assert 0 < difference < 0.01


@pytest.mark.parametrize("placement", ["input", "output"])
@torch.no_grad()
def test_clip_equals_frame_by_frame(rvm: MattingNetwork, clip: Tensor, placement: str) -> None:
    quantized = quantize(rvm, RVM_PARTITION, _spec(placement=placement), clip).double()
    clip = clip.double()  # in single precision a sum at a rounding border may flip a code
    whole = quantized.matte(clip)
    states: tuple[Tensor | None, ...] = ()
    for t, frame in enumerate(clip.unbind(1)):
        one = quantized.matte(frame, states)
        states = one.states
        torch.testing.assert_close(one.alpha, whole.alpha[:, t], rtol=0, atol=1e-10)
        torch.testing.assert_close(one.foreground, whole.foreground[:, t], rtol=0, atol=1e-10)
    for state, last in zip(states, whole.states, strict=True):
        torch.testing.assert_close(state, last, rtol=0, atol=1e-10)


def test_float_network_is_not_changed(rvm: MattingNetwork, clip: Tensor) -> None:
    before = {key: value.clone() for key, value in rvm.state_dict().items()}
    quantized = quantize(rvm, RVM_PARTITION, _spec(), clip)
    with torch.no_grad():
        for parameter in quantized.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in rvm.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in rvm.modules())


@pytest.mark.parametrize(("weight", "activation"), [(32, 32), (4, 32), (32, 4)])
def test_float_bits_leave_their_slots_empty(weight: int, activation: int) -> None:
    network = tiny_folded()
    plan = make_plan(network, resolve(network, TINY_PARTITION), _spec(weight, activation))
    assert (len(plan.weights), len(plan.sites)) == (0 if weight == 32 else 4, 0 if activation == 32 else 4)
    quantized = quantize(network, TINY_PARTITION, _spec(weight, activation), disc_clips().frames)
    for layer in quantized_layers(quantized).values():
        assert (layer.weight_quantizer is None) == (weight == 32)
        assert (layer.input_quantizer is None) == (activation == 32)


@pytest.mark.parametrize(("bits", "edge_bits", "expected"), [(4, 8, 8), (8, 4, 8), (4, 2, 4), (4, 32, 32)])
def test_edge_layers_take_the_wider_choice(bits: int, edge_bits: int, expected: int) -> None:
    network = tiny_folded()
    spec = replace(_spec(bits, bits), edge_bits=edge_bits)
    plan = make_plan(network, resolve(network, TINY_PARTITION), spec)
    found = plan.weights["project"].bits if "project" in plan.weights else 32
    assert found == expected and plan.weights["body.0"].bits == bits


def test_sites_that_calibration_misses_are_named() -> None:
    network = tiny_folded()
    plan = make_plan(network, resolve(network, TINY_PARTITION), _spec())
    with pytest.raises(DataError, match="never observed"):
        observe(network, plan, lambda: None)
    with pytest.raises(ConfigError, match=r"layer 'stem\.conv' has no observed range"):
        swap(network, plan, {})


def test_hooks_go_even_when_calibration_fails() -> None:
    network = tiny_folded()
    plan = make_plan(network, resolve(network, TINY_PARTITION), _spec())

    def broken() -> None:
        raise RuntimeError("no clip")

    with pytest.raises(RuntimeError, match="no clip"):
        observe(network, plan, broken)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _site(bits: int, affine: bool = True, sizes: tuple[int, ...] = ()) -> Site:
    return Site("layer", "layer", "input", ActivationSpec(bits, affine), sizes)


def _quantizer(site: Site, ranges: list[tuple[float, float]]) -> ActivationQuantizer:
    return activation_quantizers_of(Plan({}, {"layer": site}), {"layer": ranges})["layer"]


@settings(deadline=None, max_examples=100)
@given(reach=st.floats(1e-3, 1e3), bits=st.integers(2, 8))
def test_without_affine_the_grid_is_unsigned_or_centred(reach: float, bits: int) -> None:
    assert float(_quantizer(_site(bits, False), [(0.0, reach)]).zero_point) == 0
    centred = _quantizer(_site(bits, False), [(-reach / 3, reach)])
    assert float(centred.zero_point) == 2 ** (bits - 1)


ENDS = st.tuples(st.floats(-10, 0, width=16), st.floats(0, 10, width=16))


@settings(deadline=None, max_examples=100)
@given(ranges=st.lists(ENDS, min_size=2, max_size=3), bits=st.integers(3, 8))
def test_branches_share_a_zero_point_and_each_covers_its_range(ranges: list[tuple[float, float]], bits: int) -> None:
    quantizer = _quantizer(_site(bits, sizes=(1,) * len(ranges)), ranges)
    assert 0 <= float(quantizer.zero_point) <= quantizer.levels
    ends = torch.tensor(ranges).T.reshape(2, 1, -1, 1, 1)
    step = quantizer.scale.view(1, -1, 1, 1)
    assert bool(((quantizer(ends) - ends).abs() <= step * 0.51 + 1e-4).all())
