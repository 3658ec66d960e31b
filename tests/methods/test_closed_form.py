"""Closed-form rounding of a whole network, its resumption, and the bits of single layers under a budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from networks import TINY_PARTITION, disc_clips, quantize
from ptq4vm.errors import ConfigError
from ptq4vm.methods.closed_form import ClosedFormRounding, ClosedFormSettings
from ptq4vm.methods.mixed_bits import Budget, averages, by_hand, choose_bits, within_average, within_size
from ptq4vm.methods.sensitivity import Sensitivity, measure_sensitivity
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.capture import BlockCall
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layer_samples import sample_layers
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.placement.plan import make_plan
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

W3A8 = QuantSpec(WeightSpec(3, observer="mse"), ActivationSpec(8, observer="minmax"))
SETTINGS = ClosedFormSettings(frames=4, samples=2048, candidates=4, chunk_frames=8)


def _fit(teacher: MattingNetwork, quantized: MattingNetwork, frames: Tensor, start: int = 0) -> list[str]:
    module = ClosedFormRounding(teacher, quantized, TINY_PARTITION.blocks, frames, SETTINGS, 0, start)
    done: list[str] = []
    module.finished = lambda block, seconds: done.append(block)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **options).fit(module)
    module.teardown("fit")
    return done


@torch.no_grad()
def _error(network: MattingNetwork, teacher: MattingNetwork, frames: Tensor) -> float:
    return float((network.matte(frames).alpha - teacher.matte(frames).alpha).square().mean())


@pytest.mark.parametrize("placement", ["input", "output", "engine"])
def test_the_network_comes_nearer_to_the_float_one(teacher: MattingNetwork, frames: Tensor, placement: str) -> None:
    granularity = "channel" if placement == "engine" else "tensor"
    spec = replace(W3A8, placement=placement, activation=replace(W3A8.activation, granularity=granularity))
    quantized = quantize(teacher, TINY_PARTITION, spec, frames)
    unseen = disc_clips(4, seed=9).frames
    before = _error(quantized, teacher, frames), _error(quantized, teacher, unseen)
    assert _fit(teacher, quantized, frames) == list(TINY_PARTITION.blocks)
    after = _error(quantized, teacher, frames), _error(quantized, teacher, unseen)
    assert after[0] < 0.5 * before[0] and after[1] < 0.7 * before[1]
    for layer in quantized_layers(quantized).values():
        assert layer.weight_quantizer is not None and layer.weight_quantizer.decided
        codes = layer.weight_quantizer.codes(layer.weight)
        assert codes.min() >= layer.weight_quantizer.quant_min and codes.max() <= layer.weight_quantizer.quant_max


def test_blocks_that_are_done_stay(teacher: MattingNetwork, frames: Tensor) -> None:
    whole = quantize(teacher, TINY_PARTITION, W3A8, frames)
    _fit(teacher, whole, frames)
    half = quantize(teacher, TINY_PARTITION, W3A8, frames)
    for name in TINY_PARTITION.blocks[:2]:
        half.set_submodule(name, whole.get_submodule(name))
    assert _fit(teacher, half, frames, start=2) == list(TINY_PARTITION.blocks[2:])
    states = whole.state_dict(), half.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("options", [{"frames": 0}, {"ridge": 0.0}, {"sweeps": -1}, {"damping": float("nan")}])
def test_settings_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ClosedFormSettings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kernel", "stride", "dilation", "groups"), [(3, 2, 1, 1), (5, 1, 2, 4), (1, 1, 1, 1)])
def test_samples_times_weights_are_the_layers_output(kernel: int, stride: int, dilation: int, groups: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 8, kernel, stride, kernel // 2 * dilation, dilation, groups, bias=False)
    block = torch.nn.Sequential(conv)
    x = torch.randn(3, 4, 12, 10)
    every = sample_layers(block, {"0": 10**6}, [BlockCall((x,), {}, None)])["0"]
    rows = conv.weight.reshape(groups, 8 // groups, -1)
    found = (every.values @ rows.mT).transpose(1, 2).reshape(8, 3, -1).transpose(0, 1)
    torch.testing.assert_close(found, conv(x).flatten(2), rtol=1e-4, atol=1e-5)
    few = sample_layers(block, {"0": 30}, [BlockCall((x,), {}, None)], seed=1)["0"]
    again = sample_layers(block, {"0": 30}, [BlockCall((2 * x,), {}, None)], seed=1, reads=1)["0"]
    assert few.values.shape[1] == 30 and few.reads == 1
    assert torch.equal(again.values, 2 * few.values), "the same places in both networks"


@pytest.fixture(scope="module")
def sensitivity(teacher: MattingNetwork, frames: Tensor) -> Sensitivity:
    partition = resolve(teacher, TINY_PARTITION)
    return measure_sensitivity(teacher, partition, MIXED, frames[:2], (3, 6))


MIXED = QuantSpec(WeightSpec(3), ActivationSpec(3, granularity="channel"), placement="engine")


def test_sensitivity_is_that_of_the_network_with_one_quantizer(
    teacher: MattingNetwork, frames: Tensor, sensitivity: Sensitivity
) -> None:
    assert set(sensitivity.weights) == set(make_plan(teacher, resolve(teacher, TINY_PARTITION), MIXED).weights)
    body = sensitivity.weights["body.0"]
    assert body.elements == 8 * 8 * 9 and 0 < body.errors[6] < body.errors[3]
    assert all(item.errors[6] < item.errors[3] for item in sensitivity.activations.values() if len(item.errors) == 2)
    assert not sensitivity.weights["project"].errors, "an edge layer has 8 bits"
    alone = quantize(teacher, TINY_PARTITION, replace(MIXED, activation=ActivationSpec(32)), frames[:2])
    for path, layer in quantized_layers(alone).items():
        if path != "body.0":
            layer.weight_quantizer = None
    weights = replace(MIXED, activation=ActivationSpec(32))
    measured = measure_sensitivity(teacher, resolve(teacher, TINY_PARTITION), weights, frames[:2], (3,))
    with torch.no_grad():
        error = float((alone.matte(frames[:2]).alpha - teacher.matte(frames[:2]).alpha).abs().mean())
    assert measured.weights["body.0"].errors[3] == pytest.approx(error, rel=1e-3)


def test_a_budget_is_kept_and_spent_where_it_helps(sensitivity: Sensitivity) -> None:
    budget = Budget(avg_bits=6.0, widths=(3, 4, 6, 8))
    spec = within_average(MIXED, budget, sensitivity, 6.0)
    weights, activations = averages(spec, sensitivity)
    assert 5 < weights <= 6.0 + 1e-6 and 5 < activations <= 6.0 + 1e-6
    smaller = within_size(MIXED, budget, sensitivity, code_bytes=4.0 / 8 * _weights(sensitivity))
    assert averages(smaller, sensitivity)[0] <= 4.0 + 1e-6 and not smaller.activation_bits
    with pytest.raises(ConfigError, match="below"):
        within_average(MIXED, budget, sensitivity, 2.0)


def _weights(sensitivity: Sensitivity) -> float:
    return sum(item.elements for item in sensitivity.weights.values())


def test_bits_by_hand_reach_the_network(teacher: MattingNetwork, frames: Tensor, sensitivity: Sensitivity) -> None:
    budget = Budget(keep=("recur.*",), layers={"body.0": 5})
    spec = by_hand(MIXED, budget, sensitivity)
    assert spec.weight_bits == {"recur.mix.0": 8, "body.0": 5}
    plan = make_plan(teacher, resolve(teacher, TINY_PARTITION), spec)
    assert plan.weights["body.0"].bits == 5 and plan.weights["recur.mix.0"].bits == 8
    with pytest.raises(ConfigError, match=r"'nobody\.\*' matches no layer"):
        by_hand(MIXED, Budget(keep=("nobody.*",)), sensitivity)
    with pytest.raises(ConfigError, match="nothing is quantized at 'nowhere'"):
        make_plan(teacher, resolve(teacher, TINY_PARTITION), replace(MIXED, weight_bits={"nowhere": 4}))
    chosen = choose_bits(teacher, resolve(teacher, TINY_PARTITION), MIXED, Budget(avg_bits=6.5, measured=(3,)), frames)
    mixed = quantize(teacher, TINY_PARTITION, chosen, frames)
    uniform = quantize(teacher, TINY_PARTITION, MIXED, frames)
    assert _error(mixed, teacher, frames) < _error(uniform, teacher, frames)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"avg_bits": 4.5, "max_mb": 1.0}, "two budgets"),
        ({"avg_bits": -1.0}, "positive"),
        ({"widths": (4, 9)}, "from 2 to 8"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Budget(**options)  # type: ignore[arg-type]
