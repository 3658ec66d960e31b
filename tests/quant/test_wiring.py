"""Which stored tensors layers read, and what the engine placement makes of it."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from networks import RVM_PARTITION, TINY_PARTITION, folded_rvm, quantize, random_rvm, tiny_folded
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import CheckpointInfo, load_quantized, read_info, save_quantized
from ptq4vm.quant.insert import activation_quantizers, quantized_layers
from ptq4vm.quant.layers import QuantActivation
from ptq4vm.quant.partition import layers, resolve
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.placement.wiring import Segment, _slice, trace
from ptq4vm.quant.quantizers.base import ActivationQuantizer
from ptq4vm.quant.spec import ActivationSpec, Partition, QuantSpec, WeightSpec

POOLED = {"backbone.layer1.0.conv1", "backbone.layer1.0.downsample.0"}
"""They read what a maximum pooling gives."""


def spec(granularity: str = "mixed", bits: int = 8, observer: str = "mse") -> QuantSpec:
    return QuantSpec(WeightSpec(8), ActivationSpec(bits, granularity=granularity, observer=observer), "engine")


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.rand(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("variant", "others"),
    [
        ("mobilenetv3", {"backbone.features.0.0", "aspp.aspp2.1", "fc1"}),
        ("resnet50", POOLED | {"backbone.conv1", "aspp.aspp2.1"}),
    ],
)
def test_layers_read_what_the_network_stores(variant: str, others: set[str]) -> None:
    network = folded_rvm(variant)
    wiring = trace(network)
    for path, layer in layers(
        network, resolve(network, RVM_PARTITION if variant == "mobilenetv3" else _resnet())
    ).items():
        if path not in wiring.inputs:
            assert path in others or path.rpartition(".")[2] in others
            continue
        assert isinstance(layer, nn.Conv2d)
        assert sum(s.stop - s.start for s in wiring.inputs[path]) == layer.in_channels
        assert all(s.stop <= wiring.channels[s.site] for s in wiring.inputs[path])
    assert [segment.site for segment in wiring.inputs["decoder.decode2.conv.0"]][-1] == "decoder.images.2"
    assert wiring.inputs["decoder.decode1.gru.ih.0"][1].site == "decoder.decode1.gru.state"
    assert wiring.regrids["decoder.decode0.merge.upsampled"] == wiring.inputs["decoder.decode0.conv.0"][:2]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _resnet() -> Partition:
    blocks = ("backbone.*", "aspp", "decoder.decode*", "project_mat")
    return Partition(blocks=blocks, float_modules=RVM_PARTITION.float_modules)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), cut=st.integers(0, 45))
def test_slices_take_a_tensor_apart(lengths: list[int], cut: int) -> None:
    segments = tuple(Segment(str(i), 2, 2 + length) for i, length in enumerate(lengths))
    total = sum(lengths)
    cut = min(cut, total)
    parts = _slice(segments, 0, cut) + _slice(segments, cut, total)
    channels = [(s.site, c) for s in parts for c in range(s.start, s.stop)]
    assert channels == [(s.site, c) for s in segments for c in range(s.start, s.stop)]


@pytest.mark.parametrize("granularity", ["mixed", "tensor", "channel"])
def test_joined_tensors_share_their_zero_and_keep_their_scales(
    rvm: MattingNetwork, granularity: str, frames: Tensor
) -> None:
    quantized = quantize(rvm, RVM_PARTITION, spec(granularity), frames)
    plan = make_plan(rvm, resolve(rvm, RVM_PARTITION), spec(granularity))
    found = {path.removesuffix(".output_quantizer"): q for path, q in activation_quantizers(quantized).items()}
    for path, segments in plan.inputs.items():
        sites = {segment.site for segment in segments}
        assert len({int(found[site].zero_point) for site in sites}) == 1
        if len(sites) > 1:
            assert not any(found[site].learns for site in sites)
            if granularity == "tensor":
                assert len({float(found[site].scale) for site in sites}) == 1
        carried = quantized_layers(quantized)[path].weight_quantizer
        assert carried is not None and (carried.factor is not None) == (path in plan.carriers)
    assert bool(plan.carriers) == (granularity != "tensor")


def test_every_stored_tensor_lies_on_its_grid(rvm: MattingNetwork, frames: Tensor) -> None:
    quantized = quantize(rvm, RVM_PARTITION, spec(), frames)
    checked = []

    def check(path: str, quantizer: ActivationQuantizer, output: Tensor) -> None:
        scale = quantizer.channel_scale().view(-1, 1, 1) if quantizer.sizes else quantizer.scale
        codes = output / scale + quantizer.zero_point
        assert float((codes - codes.round()).abs().max()) < 1e-2, path
        assert float(codes.min()) > -0.5 and float(codes.max()) < quantizer.levels + 0.5
        checked.append(path)

    for path, module in quantized.named_modules():
        if isinstance(module, QuantActivation):
            module.register_forward_hook(lambda m, a, out, path=path: check(path, m.output_quantizer, out))
    with torch.no_grad():
        quantized.matte(frames)
    assert {"decoder.decode1.gru.state", "decoder.decode0.merge.upsampled", "backbone.features.3.out"} <= set(checked)


def test_weights_carry_the_scales_of_what_they_read(rvm: MattingNetwork, frames: Tensor) -> None:
    quantized = quantize(rvm, RVM_PARTITION, spec(), frames)
    layer = quantized_layers(quantized)["decoder.decode0.conv.0"]
    quantizer = layer.weight_quantizer
    assert quantizer is not None and quantizer.factor is not None
    weight, _ = layer.effective()
    codes = weight * quantizer.factor.view(1, -1, 1, 1) / quantizer.scale.view(-1, 1, 1, 1)
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def test_eight_bits_stay_close_to_float(rvm: MattingNetwork, frames: Tensor) -> None:
    quantized = quantize(rvm, RVM_PARTITION, spec(), frames)
    with torch.no_grad():
        expected, found = (n.matte(frames[:, 0]).foreground for n in (rvm, quantized))
    noise = (found - expected).square().mean() / (expected - frames[:, 0]).square().mean()
    assert float(noise) < 0.1


def test_a_checkpoint_gives_the_same_network(rvm: MattingNetwork, frames: Tensor, tmp_path: Path) -> None:
    chosen = spec()
    quantized = quantize(rvm, RVM_PARTITION, chosen, frames)
    model = {"family": "rvm", "arguments": {"variant": "mobilenetv3"}}
    save_quantized(tmp_path, quantized, CheckpointInfo(model, chosen, resolve(rvm, RVM_PARTITION), {}))
    loaded = load_quantized(tmp_path, random_rvm("mobilenetv3", seed=1), read_info(tmp_path))
    with torch.no_grad():
        expected, found = (n(frames) for n in (quantized, loaded))  # type: ignore[operator]
    torch.testing.assert_close(found[1], expected[1])


def test_networks_without_junctions_quantize_inputs() -> None:
    network = tiny_folded()
    plan = make_plan(network, resolve(network, TINY_PARTITION), spec("tensor", observer="minmax"))
    assert plan.sites["recur.mix.0"].side == "input" and "body.0" in plan.inputs
