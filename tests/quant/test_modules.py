from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ptq4vm.errors import ConfigError
from ptq4vm.quant.fold import absorb
from ptq4vm.quant.layers import Affine, QuantActivation, QuantConv2d, QuantLayer, QuantLinear
from ptq4vm.quant.observers import weight_scale
from ptq4vm.quant.quantizers.adaround import AdaRound
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.quantizers.nearest import Nearest
from ptq4vm.quant.quantizers.uniform import UniformQuantizer
from ptq4vm.quant.spec import WeightSpec


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LAYERS: dict[str, tuple[type[QuantLayer], nn.Conv2d | nn.Linear, tuple[int, ...]]] = {
    "conv": (QuantConv2d, nn.Conv2d(4, 6, 3, 2, 1), (2, 4, 8, 8)),
    "no bias": (QuantConv2d, nn.Conv2d(4, 6, 3, padding=(1, 0), bias=False), (2, 4, 8, 8)),
    "depthwise": (QuantConv2d, nn.Conv2d(4, 4, 3, padding=4, dilation=4, groups=4), (2, 4, 8, 8)),
    "linear": (QuantLinear, nn.Linear(4, 6), (2, 5, 4)),
    "linear without bias": (QuantLinear, nn.Linear(4, 6, bias=False), (3, 4)),
}


@pytest.fixture(params=LAYERS)
def case(request: pytest.FixtureRequest) -> tuple[QuantLayer, nn.Module, Tensor]:
    """A quantized layer with empty slots, its float layer, an input."""
    kind, layer, shape = LAYERS[request.param]
    layer = copy.deepcopy(layer)
    return kind(copy.deepcopy(layer)), layer, _randn(*shape)  # type: ignore[call-arg]


def _equip(layer: QuantLayer, granularity: str, weights: str) -> None:
    """Fill the slots; the affine is far from the identity."""
    channels = layer.weight.shape[0]
    scale = weight_scale(layer.weight, WeightSpec(4, granularity))
    if weights == "nearest":
        layer.weight_quantizer = Nearest(4, scale)
    elif weights == "adaround":
        layer.weight_quantizer = AdaRound(layer.weight, 4, scale)
        with torch.no_grad():
            layer.weight_quantizer.rounding.add_(_randn(*layer.weight.shape, seed=4))
    layer.input_quantizer = UniformQuantizer(8, torch.tensor([0.03]), 128)
    layer.affine = Affine(channels if granularity == "channel" else 1)
    with torch.no_grad():
        layer.affine.log_scale.normal_(0, 0.5)
        layer.affine.shift.normal_(0, 0.5)


def test_empty_slots_compute_the_float_layer(case: tuple[QuantLayer, nn.Module, Tensor]) -> None:
    layer, plain, x = case
    assert torch.equal(layer(x), plain(x)) or torch.allclose(layer(x), plain(x), atol=1e-6)
    assert layer.bias is not None
    assert isinstance(layer, type(plain))  # tools that look for nn.Conv2d find it


def test_fresh_affine_changes_nothing(case: tuple[QuantLayer, nn.Module, Tensor]) -> None:
    layer, plain, x = case
    layer.affine = Affine(layer.weight.shape[0])
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=1e-6)


def test_affine_acts_on_the_output(case: tuple[QuantLayer, nn.Module, Tensor]) -> None:
    layer, plain, x = case
    layer.affine = Affine(1)
    with torch.no_grad():
        layer.affine.log_scale.fill_(0.7)
        layer.affine.shift.fill_(-0.3)
    torch.testing.assert_close(layer(x), plain(x) * torch.tensor(0.7).exp() - 0.3)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("weights", ["float", "nearest", "adaround"])
@torch.no_grad()
def test_absorbed_equals_unabsorbed(case: tuple[QuantLayer, nn.Module, Tensor], granularity: str, weights: str) -> None:
    layer, _, x = case
    torch.manual_seed(0)
    _equip(layer, granularity, weights)
    network = nn.Sequential(layer).eval()
    before = network(x)
    keys = set(layer.state_dict())
    assert absorb(network) is network
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-5)
    assert not any(isinstance(m, (Affine, AdaRound)) for m in network.modules())
    assert layer.affine is None
    assert {k.partition(".")[0] for k in keys - set(layer.state_dict())} <= {"affine", "weight_quantizer"}
    if weights != "float":
        assert isinstance(layer.weight_quantizer, FixedCodes)
        assert int(layer.weight_quantizer.fixed.min()) >= -8 and int(layer.weight_quantizer.fixed.max()) <= 7
    absorb(network)  # again: nothing left to do
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_channel_affine_over_one_weight_scale_gives_a_scale_per_channel() -> None:
    layer = QuantConv2d(nn.Conv2d(4, 6, 3))
    layer.weight_quantizer = Nearest(4, weight_scale(layer.weight, WeightSpec(4, "tensor")))
    layer.affine = Affine(6)
    layer.affine.log_scale.copy_(_randn(6))
    x = _randn(1, 4, 5, 5)
    before = layer(x)
    layer.absorb_affine()
    assert layer.weight_quantizer.scale.shape == (6,)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_harden_decides_the_rounding() -> None:
    layer = QuantConv2d(nn.Conv2d(4, 6, 3))
    _equip(layer, "channel", "adaround")
    expected = layer.weight_quantizer.eval()(layer.weight)
    layer.harden()
    fixed = layer.weight_quantizer
    assert isinstance(fixed, FixedCodes) and torch.equal(fixed(layer.weight), expected)
    layer.harden()
    assert layer.weight_quantizer is fixed


def test_quantizers_act_in_their_slots() -> None:
    quantizer = UniformQuantizer(2, torch.tensor([1.0]), 0)
    layer = QuantLinear(nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        layer.weight.fill_(0.4)
    x = torch.tensor([[1.6], [9.0]])
    layer.input_quantizer = quantizer
    torch.testing.assert_close(layer(x), torch.tensor([[0.8], [1.2]]))
    layer.input_quantizer, layer.output_quantizer = None, quantizer
    torch.testing.assert_close(layer(x), torch.tensor([[1.0], [3.0]]))
    activation = QuantActivation(nn.ReLU(), quantizer)
    assert activation(torch.tensor([-1.0, 1.4])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_unsupported_padding_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not supported"):
        QuantConv2d(nn.Conv2d(3, 3, 3, **options))  # type: ignore[arg-type]
