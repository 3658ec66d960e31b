"""Quantizers for engines whose integer operations all end in integers (``stores=operations``)."""

from __future__ import annotations

import pytest
from torch import Tensor

from networks import RVM_PARTITION, quantize
from ptq4vm.errors import ConfigError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import CheckpointInfo, _structure
from ptq4vm.quant.insert import observe, quantized_layers
from ptq4vm.quant.layers import QuantActivation
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import Plan, make_plan
from ptq4vm.quant.quantizers.base import ActivationQuantizer
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

SPEC = QuantSpec(WeightSpec(8), ActivationSpec(8, observer="minmax"), "engine", stores="operations")
ADDED = "backbone.features.3.block.2.0"
CURVED = {"backbone.features.16.0": -3.0, "decoder.decode1.gru.hh.0": -3.5, "decoder.decode1.gru.ih.0": -7.0}
PLAIN = ("decoder.decode1.conv.0", "backbone.features.4.block.2.fc2", "project_mat.conv", "aspp.aspp1.0")


@pytest.fixture(scope="module")
def plan(rvm: MattingNetwork) -> Plan:
    return make_plan(rvm, resolve(rvm, RVM_PARTITION), SPEC)


def test_results_are_stored_before_sums_and_curved_functions(plan: Plan) -> None:
    assert plan.sites[f"{ADDED}:result"].bounds is None
    for path, lowest in CURVED.items():
        bounds = plan.sites[f"{path}:result"].bounds
        assert bounds is not None and bounds[0] == lowest
    assert not {f"{path}:result" for path in PLAIN} & plan.sites.keys()
    # what is multiplied by a gate, and what is pooled
    assert {"aspp.aspp1.2", "backbone.features.4.block.1.2"} <= plan.sites.keys()


def test_gates_have_their_range_from_their_functions(plan: Plan, rvm: MattingNetwork, clip: Tensor) -> None:
    known = {path: site.known for path, site in plan.sites.items() if site.known is not None}
    assert known["decoder.decode1.gru.ih.1"] == known["aspp.aspp2.2"] == (0, 1)
    assert known["backbone.features.4.block.2.scale_activation"] == (0, 1)
    ranges = observe(rvm, plan, lambda: rvm.matte(clip) and None)
    assert all(ranges[path] == [pair] for path, pair in known.items())
    assert all(plan.frozen(path) for path in known)
    # only what goes into hard-swish above -3 is looked at
    assert all(ranges[f"{path}:result"][0][0] >= lowest for path, lowest in CURVED.items())


def test_joined_tensors_have_scales_of_their_own_that_the_weights_carry(rvm: MattingNetwork, clip: Tensor) -> None:
    quantized = quantize(rvm, RVM_PARTITION, SPEC, clip)
    tanh = quantized.get_submodule("decoder.decode1.gru.hh.1")
    assert isinstance(tanh, QuantActivation) and isinstance(tanh.output_quantizer, ActivationQuantizer)
    assert float(tanh.output_quantizer.scale) == pytest.approx(1 / 127, rel=1e-6)
    assert int(tanh.output_quantizer.zero_point) == 127
    layer = quantized_layers(quantized)["decoder.decode1.conv.0"]
    sites = [quantized.get_submodule(path).output_quantizer for path in dict.fromkeys(s.site for s in layer.reads)]
    assert len({int(site.zero_point) for site in sites}) == 1 < len({float(site.scale) for site in sites})
    assert all(site.scale.numel() == 1 for site in sites)
    assert layer.weight_quantizer is not None and layer.weight_quantizer.factor is not None
    assert len(layer.weight_quantizer.factor) == layer.weight.shape[1]
    assert quantized_layers(quantized)["decoder.decode0.conv.3"].weight_quantizer.factor is None  # type: ignore[union-attr]


@pytest.mark.parametrize("other", [{"placement": "input"}, {"activation": ActivationSpec(8, granularity="mixed")}])
def test_it_needs_its_placement_and_one_scale_for_a_tensor(other: dict) -> None:
    with pytest.raises(ConfigError, match="stores=operations needs placement=engine"):
        QuantSpec(**{"placement": "engine", "stores": "operations", **other})


def test_files_from_before_keep_their_digest(rvm: MattingNetwork) -> None:
    partition = resolve(rvm, RVM_PARTITION)
    assert "stores" not in _structure(CheckpointInfo({}, QuantSpec(), partition))["spec"]
    assert _structure(CheckpointInfo({}, SPEC, partition))["spec"]["stores"] == "operations"


def test_nothing_is_stored_for_float_activations(rvm: MattingNetwork) -> None:
    spec = QuantSpec(WeightSpec(8), ActivationSpec(32), "engine", stores="operations")
    assert not make_plan(rvm, resolve(rvm, RVM_PARTITION), spec).sites
