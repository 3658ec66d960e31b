"""Closed-form rounding of a whole network, its resumption, and the samples that it looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from networks import TINY_PARTITION, disc_clips, quantize
from ptq4vm.errors import ConfigError
from ptq4vm.methods.closed_form import ClosedFormRounding, ClosedFormSettings
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.capture import BlockCall
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layer_samples import sample_layers
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
