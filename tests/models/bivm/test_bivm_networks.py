"""Blocks against their equations, networks of every kind, and the form in which they are stored."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from ptq4vm import load_checkpoint, settings
from ptq4vm.errors import ConfigError, WeightsError
from ptq4vm.exporting.trace import FrameShape, to_onnx
from ptq4vm.models.bivm import decoder as shb
from ptq4vm.models.bivm import encoder as ebb
from ptq4vm.models.bivm.cost import measure
from ptq4vm.models.bivm.layers import BinaryConv2d, Convolutions, binary_layers
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.models.family import FAMILIES
from ptq4vm.pipeline.binary import FLOAT_SPEC
from ptq4vm.quant.checkpoint import CheckpointInfo, save_quantized
from ptq4vm.quant.partition import resolve

KINDS = {
    path.stem: settings.read_choice("model", path.stem)["arguments"]
    for path in sorted((settings.config_folder() / "model").glob("*.yaml"))
    if settings.read_choice("model", path.stem)["family"] == "bivm"
}
PUBLISHED = {  # operations in G and size in MB at 512x288: BiVM, tables of its comparison and ablation
    "rvm_bnn": (0.50, 0.57),
    "rvm_dorefa": (0.52, 0.64),
    "rvm_recu": (0.52, 0.64),
    "rvm_reactnet": (0.55, 0.64),
    "bivm_ebb": (0.57, 0.67),
    "bivm_shb": (0.27, 0.67),
    "bivm": (0.32, 0.67),
}
TWINS = {"rvm_reactnet": (4.57, 14.5), "bivm_ebb": (7.11, 15.9), "bivm_shb": (2.58, 14.6), "bivm": (5.02, 16.3)}


def stirred(network: BiVM, seed: int = 0) -> BiVM:
    """The network with statistics of its own, in eval mode."""
    torch.manual_seed(seed)
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(1, 2, 3, 64, 96))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "binarizer", "published"),
    [(name, None, values) for name, values in PUBLISHED.items()] + [(k, "none", v) for k, v in TWINS.items()],
)
def test_cost_is_that_of_the_papers(name: str, binarizer: str | None, published: tuple[float, float]) -> None:
    arguments = {**KINDS[name], **({"binarizer": binarizer} if binarizer else {})}
    cost = measure(BiVM(**arguments).eval(), (288, 512))
    assert (cost.gflops, cost.mb) == pytest.approx(published, rel=0.05)


def test_binary_operations_count_as_a_64th() -> None:
    cost = measure(BiVM("mobilenetv3", "dense", "bnn").eval(), (64, 96))
    twin = measure(BiVM("mobilenetv3", "dense", "none").eval(), (64, 96))
    assert cost.binary_macs + cost.float_macs == twin.float_macs and twin.binary_macs == 0
    assert cost.gflops == pytest.approx((cost.binary_macs / 64 + cost.float_macs + cost.elementwise) / 1e9)
    assert cost.bits + cost.floats == twin.floats


@given(have=st.sampled_from([4, 8, 16]), want=st.sampled_from([4, 8, 16]))
def test_channels_are_repeated_or_averaged(have: int, want: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, have, 3, 2)).astype(np.float32)
    expected = np.concatenate([x] * (want // have), 1) if want >= have else x.reshape(2, -1, want, 3, 2).mean(1)
    np.testing.assert_allclose(ebb.map_channels(torch.from_numpy(x), want).numpy(), expected, atol=1e-6)


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="6 channels cannot be split into, or repeated to, 4"):
        ebb.map_channels(torch.zeros(1, 6, 1, 1), 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_sub_block_is_its_equation(stride: int) -> None:
    block = ebb.SubBlock(Convolutions("reactnet"), 8, 16, stride).eval()
    torch.manual_seed(1)
    for parameter in block.parameters():
        parameter.data.normal_()
    x = torch.randn(1, 8, 6, 4)
    small = x if stride == 1 else torch.nn.functional.avg_pool2d(x, 2)
    a, b = block.wide_shortcut.coefficient, block.point_shortcut.coefficient
    c = block.cross_shortcut.coefficient
    u = block.wide_nonlinearity(block.wide(x) + a * small)
    y = block.point(u) + b * u.repeat(1, 2, 1, 1) + c * small.repeat(1, 2, 1, 1)
    torch.testing.assert_close(block(x), block.point_nonlinearity(y))


def test_new_shortcuts_change_nothing_at_first() -> None:
    elastic, plain = (ebb.SubBlock(Convolutions("bnn"), 8, 16, elastic=e).eval() for e in (True, False))
    assert not any("coefficient" in key for key in plain.state_dict())
    plain.load_state_dict({k: v for k, v in elastic.state_dict().items() if "coefficient" not in k})
    x = torch.randn(1, 8, 5, 4)
    torch.testing.assert_close(elastic(x), plain(x))


def test_elastic_penalty_is_the_mean_over_all_coefficients() -> None:
    network = ebb.ElasticBinaryBlock(Convolutions("bnn"), (8, 16, 8), 2)
    every = torch.cat([c.detach().flatten() for c in ebb.coefficients(network)])
    assert len(every) == 8 + 16 + 16 + 16 + 8 + 8 + 8
    expected = float((0.5 * every.abs() + 0.5 * every**2).sum() / len(every))
    assert float(ebb.elastic_penalty(network)) == pytest.approx(expected) and expected > 0
    assert float(ebb.elastic_penalty(nn.Linear(1, 1))) == 0


@pytest.mark.parametrize(("mask", "wide"), [(0.0, 0.0), (1.0, 1.0)])
def test_a_sparse_convolution_is_the_cheap_one_outside_the_mask(mask: float, wide: float) -> None:
    conv = shb.SparseConv(Convolutions("reactnet"), 6, 4).eval()
    x = torch.randn(1, 6, 5, 7)
    bits = conv.activation(x)
    expected = wide * conv.wide(bits) + conv.point(bits)
    torch.testing.assert_close(conv(x, torch.full((1, 1, 5, 7), mask)), expected)


def test_the_residue_is_where_features_change() -> None:
    x = torch.zeros(1, 4, 8, 12)
    assert float(shb.residue(x + 3).abs().max()) == 0
    x[..., 6:] = 1
    found = shb.residue(x)[0, 0]
    assert float(found[:, 5:7].min()) > 0.9 and float(found[:, :4].max()) < 0.1


@given(st.integers(0, 10_000))
def test_the_threshold_says_the_most_within_its_budget(seed: int) -> None:
    residues = torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(seed))
    best, at = -1.0, None
    for number in range(1, 64):
        p = float((residues > number / 64).float().mean())
        says = 0.0 if p in (0, 1) else -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        if p <= 0.25 and says > best + 1e-6:
            best, at = says, number / 64
    assert shb.choose_threshold(residues, 0.25) == pytest.approx(at)


def test_the_recurrent_unit_is_its_equation() -> None:
    gru = shb.SparseGRU(Convolutions("reactnet"), 4).eval()
    x, h, mask = torch.randn(1, 4, 3, 5), torch.randn(1, 4, 3, 5), torch.ones(1, 1, 3, 5)
    r, z = torch.sigmoid(gru.ih(torch.cat([x, h], 1), mask)).chunk(2, 1)
    c = torch.tanh(gru.hh(torch.cat([x, r * h], 1), mask))
    torch.testing.assert_close(gru.step(x, h, mask), (1 - z) * h + z * c, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_every_network_mattes_clips_and_frames_alike(name: str) -> None:
    network = stirred(BiVM(**KINDS[name]))
    clip = torch.rand(1, 3, 3, 50, 70)
    with torch.no_grad():
        whole = network.matte(clip)
        states: tuple = ()
        for number in range(3):
            frame = network.matte(clip[:, number], states)
            states = frame.states
    assert whole.alpha.shape == (1, 3, 1, 50, 70) and whole.foreground.shape == clip.shape
    torch.testing.assert_close(frame.alpha, whole.alpha[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_a_decided_network_does_the_same_and_is_built_again(name: str) -> None:
    network = stirred(BiVM(**KINDS[name]))
    x = torch.rand(1, 3, 50, 70)
    decided = copy.deepcopy(network)
    decided.decide()
    again = BiVM(**KINDS[name], decided=True).eval()
    again.load_state_dict(decided.state_dict())
    with torch.no_grad():
        before, after, loaded = (each.matte(x).alpha for each in (network, decided, again))
    assert float((before - after).abs().mean()) < 2e-3
    torch.testing.assert_close(after, loaded, atol=0, rtol=0)
    for layer in binary_layers(decided).values():
        assert set(layer.weight.unique().tolist()) <= {-1.0, 1.0} and bool((layer.scale != 0).all())
    assert not any(
        isinstance(m, nn.BatchNorm2d) for part in (decided.backbone, decided.decoder) for m in part.modules()
    )


def test_factors_may_be_negative_in_a_checkpoint(tmp_path: Path) -> None:
    """A norm whose weight has become negative is folded into them: they are no quantizer's steps."""
    arguments = KINDS["rvm_reactnet"]
    network = stirred(BiVM(**arguments))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::3] *= -1
    network.decide()
    partition = resolve(network, settings.partition(FAMILIES["bivm"]().partition(arguments)))
    model = {"family": "bivm", "arguments": network.decided_arguments(arguments)}
    save_quantized(tmp_path, network, CheckpointInfo(model, FLOAT_SPEC, partition))
    loaded = load_checkpoint(tmp_path)
    assert any(bool((layer.scale < 0).any()) for layer in binary_layers(loaded).values())
    clip = torch.rand(1, 2, 3, 64, 96)
    with torch.no_grad():
        found, wanted = (each.matte(clip).alpha for each in (loaded, network))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)  # a norm behind the last sign was folded


@pytest.mark.parametrize("binarizer", ["bnn", "dorefa", "reactnet", "recu"])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_binary_convolution_is_a_sum_of_signs(binarizer: str, groups: int) -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(Convolutions(binarizer).binarizer, 4, 8, 3, padding=1, groups=groups, bias=True)
    x = torch.randn(1, 4, 5, 6)
    bits = layer.activation(x)
    signs, scale = layer.binarizer.signs(layer.weight), layer.binarizer.scale(layer.weight)
    expected = torch.nn.functional.conv2d(bits, scale * signs, layer.bias, padding=1, groups=groups)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    layer.decide()
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("argument", ["encoder", "decoder", "binarizer"])
def test_unknown_parts_are_refused_by_name(argument: str) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        BiVM(**{argument: "nonsense"})


def test_weights_are_trained_and_never_fetched() -> None:
    with pytest.raises(WeightsError, match=r"bivm has no published weights: train it \(ptq4vm train model=bivm\)"):
        FAMILIES["bivm"]().load({})


def test_names_of_all_networks_differ() -> None:
    family = FAMILIES["bivm"]()
    names = [family.model_name(arguments) for arguments in KINDS.values()]
    assert len(set(names)) == len(names) and "bivm" in names
    for one, other in itertools.combinations(KINDS, 2):
        assert KINDS[one] != KINDS[other]


@pytest.mark.parametrize("binarizer", ["reactnet", "none"])
@pytest.mark.parametrize("decoder", ["shb", "dense"])
def test_any_engine_is_given_a_graph(decoder: str, binarizer: str) -> None:
    """Float engines round otherwise, which a binary network does not forgive: only that they run one is asked here."""
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    network = stirred(BiVM(decoder=decoder, binarizer=binarizer))
    network.decide()
    graph = to_onnx(network, FrameShape(48, 80, False, 1.0), {}, "onnx")
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {port.name: np.random.default_rng(0).random(port.shape, np.float32) for port in session.get_inputs()}
    alpha = session.run(["pha"], feeds)[0]
    assert alpha.shape == (1, 1, 48, 80) and bool(np.isfinite(alpha).all())


def test_a_file_of_weights_is_this_networks(tmp_path: Path) -> None:
    family, network = FAMILIES["bivm"](), stirred(BiVM())
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    found = family.load({}, tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())
    with pytest.raises(WeightsError, match="entries differ"):
        family.load({"encoder": "sbb"}, tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", KINDS)
def test_a_network_without_weights_is_called_by_the_name_of_its_file(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"^{name} has no published weights.*model={name}\)"):
        FAMILIES["bivm"]().load(KINDS[name])
