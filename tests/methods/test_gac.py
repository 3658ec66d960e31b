from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from networks import TINY_PARTITION, disc_clips, quantize
from ptq4vm.errors import ConfigError, TrainingError
from ptq4vm.methods.gac import GACSettings, GlobalAffineCalibration, TeacherTargets, alpha_loss, flow_loss
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.fold import absorb
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import Affine
from ptq4vm.quant.quantizers.adaround import AdaRound
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec
from ptq4vm.types import ClipBatch

W8A8 = QuantSpec(WeightSpec(8), ActivationSpec(8))
SETTINGS = GACSettings(epochs=40, affine_lr=1e-2, scale_lr=1e-3, flow_weight=0.0)


@pytest.fixture(scope="module")
def clips(teacher: MattingNetwork) -> ClipBatch:
    """Moving discs whose true alpha is the float network's: a perfect quantized network has no loss."""
    batch = disc_clips(8, 4)
    with torch.no_grad():
        return batch._replace(alpha=teacher.matte(batch.frames).alpha)


def _part(clips: ClipBatch, rows: slice) -> ClipBatch:
    return ClipBatch(*(None if value is None else value[rows] for value in clips))


def _batches(clips: ClipBatch, size: int = 4) -> DataLoader[ClipBatch]:
    parts = [_part(clips, slice(start, start + size)) for start in range(0, len(clips.frames), size)]
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def _fit(module: GlobalAffineCalibration, clips: ClipBatch, **options: Any) -> GlobalAffineCalibration:
    fit = {key: options.pop(key) for key in ("ckpt_path", "weights_only") if key in options}
    trainer = pl.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": module.settings.epochs,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        }
    )
    trainer.fit(module, _batches(clips), **fit)
    return module


def _planted(teacher: MattingNetwork, frames: Tensor, granularity: str) -> MattingNetwork:
    """An 8-bit network with a wrong scale and shift after its second block's convolution and the projection."""
    quantized = quantize(teacher, TINY_PARTITION, W8A8, frames)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for path in ("body.0", "project"):
            layer = quantized_layers(quantized)[path]
            channels = layer.weight.shape[0] if granularity == "channel" else 1
            scale = torch.exp(0.3 * torch.randn(channels, generator=generator))
            layer.weight_quantizer.scale = layer.weight_quantizer.scale * scale
            layer.bias.mul_(scale).add_(0.1 * torch.randn(channels, generator=generator))
    return quantized


@torch.no_grad()
def _error(network: MattingNetwork, clips: ClipBatch) -> float:
    return float(alpha_loss(network.matte(clips.frames).alpha, clips.alpha))


def test_flow_loss_is_zero_for_an_alpha_that_moves_with_the_flow() -> None:
    clips = disc_clips(3, 5)
    assert float(flow_loss(clips.alpha, clips.flow, clips.visible)) < 1e-6
    still = torch.zeros_like(clips.flow)
    assert float(flow_loss(clips.alpha, still, torch.ones_like(clips.visible))) > 0.01


def test_flow_loss_counts_visible_pixels_only() -> None:
    clips = disc_clips(2, 3)
    noisy = clips.alpha.clone()
    noisy[:, 1, :, :, :2] += 5.0  # not visible in the frame before: the disc moves right by 2
    noisy[:, 0, :, :, -2:] += 5.0  # leaves the image
    clean = flow_loss(noisy[:, :2], clips.flow[:, :1], clips.visible[:, :1])
    assert float(clean) == pytest.approx(0, abs=1e-5)
    assert float(flow_loss(clips.alpha, clips.flow, torch.zeros_like(clips.visible))) == 0
    half = torch.zeros(1, 2, 1, 2, 2)
    half[:, 1] = 1
    visible = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 2, 2)
    assert float(flow_loss(half, torch.zeros(1, 1, 2, 2, 2), visible)) == 1  # a mean over what is seen


def test_alpha_loss_is_the_mean_squared_error() -> None:
    assert float(alpha_loss(torch.full((1, 2, 1, 3, 3), 0.7), torch.full((1, 2, 1, 3, 3), 0.2))) == pytest.approx(0.25)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_planted_scale_and_shift_are_undone(teacher: MattingNetwork, clips: ClipBatch, granularity: str) -> None:
    quantized = _planted(teacher, clips.frames, granularity)
    settings = replace(SETTINGS, granularity=granularity, epochs=80, affine_lr=2e-2)
    before = _error(quantized, clips)
    module = GlobalAffineCalibration(quantized, settings)
    assert _error(quantized, clips) == pytest.approx(before, rel=1e-4)  # a fresh affine is the identity
    _fit(module, clips)
    assert _error(quantized, clips) < 0.05 * before


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_absorbed_network_computes_the_same_and_has_nothing_extra(
    teacher: MattingNetwork, clips: ClipBatch, granularity: str
) -> None:
    quantized = _planted(teacher, clips.frames, granularity)
    kinds = [type(module) for module in quantized.modules()]
    _fit(GlobalAffineCalibration(quantized, replace(SETTINGS, granularity=granularity, epochs=5)), clips)
    assert any(isinstance(module, Affine) for module in quantized.modules())
    quantized.eval().double()  # in single precision a sum at a rounding border may flip a code
    frames = clips.frames.double()
    with torch.no_grad():
        before = quantized.matte(frames)
        absorb(quantized)
        after = quantized.matte(frames)
    assert float((before.alpha - after.alpha).abs().max()) < 1e-5
    assert float((before.states[0] - after.states[0]).abs().max()) < 1e-5
    assert [type(module) for module in quantized.modules()] == kinds
    assert not any(isinstance(module, (Affine, AdaRound)) for module in quantized.modules())


def test_free_codes_move_and_are_decided_in_the_end(teacher: MattingNetwork, clips: ClipBatch) -> None:
    spec = replace(W8A8, weight=WeightSpec(3))
    start = quantize(teacher, TINY_PARTITION, spec, clips.frames)
    errors = {}
    for rate in (0.0, 0.05):
        settings = replace(SETTINGS, epochs=20, weight_lr=rate)
        network = _fit(GlobalAffineCalibration(copy.deepcopy(start), settings), clips).quantized
        errors[rate] = _error(network, clips)
        layers = quantized_layers(network)
        assert all(layer.weight_quantizer.decided for layer in layers.values() if layer.weight_quantizer is not None)
        moved = [
            not torch.equal(layer.weight_quantizer.fixed, quantized_layers(start)[path].weight_quantizer.fixed)
            for path, layer in layers.items()
            if layer.weight_quantizer is not None
        ]
        assert any(moved) == (rate > 0)
    assert errors[0.05] < 0.7 * errors[0.0]


def test_only_affines_and_scales_learn(teacher: MattingNetwork, clips: ClipBatch) -> None:
    quantized = _planted(teacher, clips.frames, "channel")
    before = {key: value.clone() for key, value in quantized.state_dict().items()}
    module = _fit(GlobalAffineCalibration(quantized, replace(SETTINGS, epochs=2)), clips)
    after = quantized.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved and all(key.endswith("input_quantizer.log_scale") for key in moved)
    assert len(moved) == 4
    # all start equal: parameters collected by value instead of by identity would lose all but one
    affines = [m for m in module.modules() if isinstance(m, Affine)]
    assert len(affines) == 4 and all(bool(m.log_scale.any()) and bool(m.shift.any()) for m in affines)


def test_teacher_and_states_pull_towards_the_float_network(teacher: MattingNetwork, clips: ClipBatch) -> None:
    rows = [_part(clips, slice(i, i + 1)) for i in range(len(clips.frames))]
    targets = TeacherTargets.compute(teacher, rows)
    alpha, states = targets.batch(torch.tensor([5, 2]))
    output = teacher.matte(clips.frames[[5, 2]])
    torch.testing.assert_close(alpha, output.alpha)
    torch.testing.assert_close(states[0], output.states[0])
    quantized = _planted(teacher, clips.frames, "channel")
    misleading = clips._replace(alpha=torch.zeros_like(clips.alpha))
    settings = replace(SETTINGS, granularity="channel", teacher_weight=20.0, state_weight=1.0)
    before = _error(quantized, clips)
    _fit(GlobalAffineCalibration(quantized, settings, targets), misleading)
    assert _error(quantized, clips) < 0.5 * before


@pytest.mark.parametrize("weights", [{"teacher_weight": 1.0}, {"state_weight": 1.0}])
def test_missing_targets_are_named(teacher: MattingNetwork, clips: ClipBatch, weights: dict[str, float]) -> None:
    quantized = quantize(teacher, TINY_PARTITION, W8A8, clips.frames)
    with pytest.raises(ConfigError, match="need TeacherTargets"):
        _fit(GlobalAffineCalibration(quantized, replace(SETTINGS, epochs=1, **weights)), clips)


def test_missing_flow_is_named(teacher: MattingNetwork, clips: ClipBatch) -> None:
    quantized = quantize(teacher, TINY_PARTITION, W8A8, clips.frames)
    with pytest.raises(ConfigError, match="carry no flow"):
        _fit(
            GlobalAffineCalibration(quantized, replace(SETTINGS, flow_weight=0.05)),
            clips._replace(flow=None, visible=None),
        )


def test_flow_weight_makes_alpha_steadier(teacher: MattingNetwork, clips: ClipBatch) -> None:
    unsteady = {}
    for weight in (0.0, 5.0):
        quantized = _planted(teacher, clips.frames, "channel")
        _fit(GlobalAffineCalibration(quantized, replace(SETTINGS, epochs=10, flow_weight=weight)), clips)
        with torch.no_grad():
            unsteady[weight] = float(flow_loss(quantized.matte(clips.frames).alpha, clips.flow, clips.visible))
    assert unsteady[5.0] < unsteady[0.0]


def test_nan_is_an_error_that_names_the_step(teacher: MattingNetwork, clips: ClipBatch) -> None:
    broken = clips._replace(alpha=clips.alpha.clone())
    broken.alpha[5, 0, 0, 0, 0] = math.nan
    quantized = quantize(teacher, TINY_PARTITION, W8A8, clips.frames)
    with pytest.raises(TrainingError, match="loss of GAC became nan at step 1"):
        _fit(GlobalAffineCalibration(quantized, SETTINGS), broken)


def test_burn_in_starts_every_second_step_in_the_middle(teacher: MattingNetwork, clips: ClipBatch) -> None:
    quantized = quantize(teacher, TINY_PARTITION, W8A8, clips.frames)
    clips = clips._replace(flow=clips.flow.clone(), visible=clips.visible.clone())
    for step, shift in enumerate((-3, 1, 4)):  # every pair of frames has its own flow
        clips.flow[:, step, 1] = shift
        clips.visible[:, step, :, 5 * step : 5 * step + 5] = 0
    module = GlobalAffineCalibration(quantized, replace(SETTINGS, burn_in=2, flow_weight=0.1))
    module.log = module.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        alpha = quantized.matte(clips.frames).alpha
        whole = alpha_loss(alpha, clips.alpha) + 0.1 * flow_loss(alpha, clips.flow, clips.visible)
        rest = alpha_loss(alpha[:, 2:], clips.alpha[:, 2:])
        rest = rest + 0.1 * flow_loss(alpha[:, 2:], clips.flow[:, 2:], clips.visible[:, 2:])
        torch.testing.assert_close(module.training_step(clips, 0), whole)
        torch.testing.assert_close(module.training_step(clips, 1), rest)


def test_rates_rise_and_follow_a_cosine(teacher: MattingNetwork, clips: ClipBatch) -> None:
    class Rates(pl.Callback):
        seen: list[float] = []  # noqa: RUF012

        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    quantized = quantize(teacher, TINY_PARTITION, W8A8, clips.frames)
    _fit(GlobalAffineCalibration(quantized, replace(SETTINGS, epochs=10, warmup=0.2)), clips, callbacks=[Rates()])
    rates = [rate / SETTINGS.affine_lr for rate in Rates.seen]
    assert len(rates) == 20 and rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 16)) for i in range(16)])


def test_resumed_run_ends_bit_identical(teacher: MattingNetwork, clips: ClipBatch, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=6, granularity="channel", flow_weight=0.05, weight_lr=0.01)
    start = _planted(teacher, clips.frames, "channel")
    whole = _fit(GlobalAffineCalibration(copy.deepcopy(start), settings), clips).quantized.state_dict()

    class Kill(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "epoch.ckpt")
                raise TrainingError("killed")

    with pytest.raises(TrainingError, match="killed"):
        _fit(GlobalAffineCalibration(copy.deepcopy(start), settings), clips, callbacks=[Kill()])
    module = GlobalAffineCalibration(copy.deepcopy(start), settings)
    resumed = _fit(module, clips, ckpt_path=tmp_path / "epoch.ckpt", weights_only=True).quantized.state_dict()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.parametrize(("key", "value"), [("granularity", "layer"), ("epochs", 0)])
def test_settings_out_of_range_are_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"gac {key}="):
        GACSettings(**{key: value})
