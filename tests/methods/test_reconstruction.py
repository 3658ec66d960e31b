from __future__ import annotations

import math
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from networks import TINY_PARTITION, disc_clips, quantize
from ptq4vm.errors import ConfigError, TrainingError
from ptq4vm.methods.reconstruction import BlockReconstruction
from ptq4vm.methods.schedule import ReconstructionSettings, beta
from ptq4vm.methods.units import StepSampler, reconstruction_loss
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import load_quantized_state, quantized_state
from ptq4vm.quant.insert import activation_quantizers, quantized_layers
from ptq4vm.quant.quantizers.adaround import AdaRound
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

W4A4 = QuantSpec(WeightSpec(4, observer="minmax"), ActivationSpec(4, granularity="branch", observer="minmax"))
SETTINGS = ReconstructionSettings(
    steps=60, batch_frames=12, rounding_lr=3e-2, scale_lr=3e-3, drop=0.25, input_drop=0.25, chunk_frames=6
)


def _trainer(module: BlockReconstruction) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=module.epochs,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _reconstruct(
    teacher: MattingNetwork, frames: Tensor, settings: ReconstructionSettings = SETTINGS, seed: int = 0, **options: Any
) -> BlockReconstruction:
    quantized = options.pop("quantized", None) or quantize(teacher, TINY_PARTITION, W4A4, frames)
    module = BlockReconstruction(teacher, quantized, TINY_PARTITION.blocks, frames, settings, seed, **options)
    try:
        _trainer(module).fit(module)
    finally:
        module.teardown("fit")  # which Lightning leaves out after an error
    return module


@torch.no_grad()
def _error(network: MattingNetwork, teacher: MattingNetwork, frames: Tensor) -> float:
    network.eval()
    return float(reconstruction_loss(network(frames), teacher(frames)))


def _assert_same_state(first: torch.nn.Module, second: torch.nn.Module) -> None:
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_blocks_come_closer_to_the_float_network(teacher: MattingNetwork, frames: Tensor) -> None:
    before = _error(quantize(teacher, TINY_PARTITION, W4A4, frames), teacher, frames)
    module = _reconstruct(teacher, frames, replace(SETTINGS, steps=100))
    assert [report.block for report in module.reports] == list(TINY_PARTITION.blocks)
    assert sum(report.last_loss < report.first_loss for report in module.reports) >= 3
    assert _error(module.quantized, teacher, frames) < 0.8 * before
    unseen = disc_clips(8, seed=1).frames
    nearest = quantize(teacher, TINY_PARTITION, W4A4, frames)
    assert _error(module.quantized, teacher, unseen) < 0.8 * _error(nearest, teacher, unseen)


def test_afterwards_everything_is_decided_and_quiet(teacher: MattingNetwork, frames: Tensor) -> None:
    threads = set(threading.enumerate())
    module = _reconstruct(teacher, frames, replace(SETTINGS, steps=5))
    assert set(threading.enumerate()) <= threads
    assert not any(isinstance(m, AdaRound) for m in module.quantized.modules())
    assert not any(m.training for m in module.quantized.modules())
    assert all(quantizer.drop == 0 for quantizer in activation_quantizers(module.quantized).values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.quantized.modules())


def test_only_rounding_and_scales_move(teacher: MattingNetwork, frames: Tensor) -> None:
    start = quantize(teacher, TINY_PARTITION, W4A4, frames)
    done = _reconstruct(teacher, frames).quantized
    changed_codes = 0
    for path, layer in quantized_layers(start).items():
        after = quantized_layers(done)[path]
        assert torch.equal(after.bias, layer.bias) and torch.equal(after.weight, layer.weight)
        assert isinstance(after.weight_quantizer, FixedCodes)
        assert torch.equal(after.weight_quantizer.scale, layer.weight_quantizer.scale)
        difference = (after.weight_quantizer.fixed.int() - layer.weight_quantizer.fixed.int()).abs()
        assert int(difference.max()) <= 1  # up or down, never further
        changed_codes += int(difference.sum())
        assert not torch.equal(after.input_quantizer.log_scale, layer.input_quantizer.log_scale)
        assert float((after.input_quantizer.log_scale - layer.input_quantizer.log_scale).detach().abs().max()) < 0.5
    assert changed_codes > 0


def test_rates_of_zero_leave_their_parameters(teacher: MattingNetwork, frames: Tensor) -> None:
    start = quantize(teacher, TINY_PARTITION, W4A4, frames)
    done = _reconstruct(teacher, frames, replace(SETTINGS, steps=5, rounding_lr=0, scale_lr=0, bias_lr=1e-2)).quantized
    for path, layer in quantized_layers(start).items():
        after = quantized_layers(done)[path]
        assert torch.equal(after.weight_quantizer.fixed, layer.weight_quantizer.fixed)
        assert torch.equal(after.input_quantizer.log_scale, layer.input_quantizer.log_scale)
        assert not torch.equal(after.bias, layer.bias)


def test_seed_decides_everything(teacher: MattingNetwork, frames: Tensor) -> None:
    settings = replace(SETTINGS, steps=15)
    first = _reconstruct(teacher, frames, settings).quantized
    torch.manual_seed(12345)  # what ran before must not matter
    torch.rand(7)
    _assert_same_state(first, _reconstruct(teacher, frames, settings).quantized)
    other = _reconstruct(teacher, frames, settings, seed=1).quantized.state_dict()
    assert any(not torch.equal(value, other[key]) for key, value in first.state_dict().items())


def test_spilling_to_disk_changes_nothing(teacher: MattingNetwork, frames: Tensor) -> None:
    settings = replace(SETTINGS, steps=5)
    kept = _reconstruct(teacher, frames, settings).quantized
    _assert_same_state(kept, _reconstruct(teacher, frames, replace(settings, memory_mib=0)).quantized)


@pytest.mark.parametrize("done", [1, 2, 3])
def test_resumed_run_ends_bit_identical(teacher: MattingNetwork, frames: Tensor, done: int) -> None:
    settings = replace(SETTINGS, steps=15, bias_lr=1e-3)
    whole = _reconstruct(teacher, frames, settings).quantized
    resumed = quantize(teacher, TINY_PARTITION, W4A4, frames)
    prefixes = tuple(f"{path}." for path in TINY_PARTITION.blocks[:done])
    finished = {key: value for key, value in quantized_state(whole).items() if key.startswith(prefixes)}
    load_quantized_state(resumed, {**quantized_state(resumed), **finished}, "memory")
    module = _reconstruct(teacher, frames, settings, quantized=resumed, start=done)
    assert [report.block for report in module.reports] == list(TINY_PARTITION.blocks[done:])
    state = quantized_state(resumed)
    assert all(torch.equal(value, state[key]) for key, value in quantized_state(whole).items())


def test_finished_is_told_once_a_block_is_decided(teacher: MattingNetwork, frames: Tensor) -> None:
    quantized = quantize(teacher, TINY_PARTITION, W4A4, frames)
    module = BlockReconstruction(teacher, quantized, TINY_PARTITION.blocks, frames, replace(SETTINGS, steps=2))
    seen: list[tuple[str, int]] = []
    module.finished = lambda report: seen.append(
        (report.block, sum(isinstance(m, AdaRound) for m in quantized.modules()))
    )
    _trainer(module).fit(module)
    assert seen == [("stem", 3), ("body", 2), ("recur", 1), ("project", 0)]


@pytest.mark.parametrize("positions", [0, 128, 1])
def test_steps_stay_within_frames_and_positions(teacher: MattingNetwork, frames: Tensor, positions: int) -> None:
    sizes: dict[str, set[int]] = {}
    quantized = quantize(teacher, TINY_PARTITION, W4A4, frames)
    for path in TINY_PARTITION.blocks:
        quantized.get_submodule(path).register_forward_pre_hook(
            lambda m, args, path=path: sizes.setdefault(path, set()).add(len(args[0])) if m.training else None
        )
    settings = replace(SETTINGS, steps=2, batch_frames=6, batch_positions=positions)
    _reconstruct(teacher, frames, settings, quantized=quantized)
    if positions == 0:
        assert sizes == {"stem": {6}, "body": {6}, "recur": {2}, "project": {6}}  # 2 clips of 3 frames
    elif positions == 128:  # outputs are 8 x 8
        assert sizes["stem"] == {2} and sizes["recur"] == {1}
    else:
        assert all(size == {1} for size in sizes.values())


def test_nan_is_an_error_that_names_the_block(teacher: MattingNetwork, frames: Tensor) -> None:
    quantized = quantize(teacher, TINY_PARTITION, W4A4, frames)
    with torch.no_grad():
        quantized.body[0].bias[0] = math.nan
    threads = set(threading.enumerate())
    with pytest.raises(TrainingError, match="loss of block body became nan"):
        _reconstruct(teacher, frames, replace(SETTINGS, steps=2), quantized=quantized)
    assert set(threading.enumerate()) <= threads


def test_rows_of_every_epoch_are_a_permutation() -> None:
    rows = [row for batch in StepSampler(10, 5, 4, seed=3) for row in batch]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10)) and rows[:10] != rows[10:]
    assert list(StepSampler(10, 5, 4, 3)) == list(StepSampler(10, 5, 4, 3)) != list(StepSampler(10, 5, 4, 4))
    assert [len(batch) for batch in StepSampler(3, 8, 2, 0)] == [3, 3]
    assert len(StepSampler(10, 5, 4, 3)) == 4


def test_beta_falls_linearly_after_the_warmup() -> None:
    settings = ReconstructionSettings(steps=101, warmup=0.2, beta_start=20, beta_end=2)
    values = [beta(step, settings) for step in range(101)]
    assert values[:21] == [None] * 21
    rest = [value for value in values[21:] if value is not None]
    assert len(rest) == 80
    assert rest[0] == pytest.approx(20, abs=0.3) and rest[-1] == 2
    steps = {round(a - b, 9) for a, b in pairwise(rest)}
    assert len(steps) == 1 and steps.pop() > 0


@pytest.mark.parametrize("settings", [ReconstructionSettings(steps=1), ReconstructionSettings(steps=3, warmup=1.0)])
def test_beta_of_the_shortest_schedules(settings: ReconstructionSettings) -> None:
    for step in range(settings.steps):
        value = beta(step, settings)
        assert value is None or settings.beta_end <= value <= settings.beta_start


def test_loss_sums_over_channels_and_tensors() -> None:
    zero, one = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    assert float(reconstruction_loss(one, zero)) == pytest.approx(3)
    assert float(reconstruction_loss((one, None, one[:, :1]), (zero, None, zero[:, :1]))) == pytest.approx(4)


@pytest.mark.parametrize(
    ("key", "value"),
    [("drop", 1.5), ("input_drop", -0.1), ("warmup", 2), ("steps", 0), ("batch_frames", 0), ("chunk_frames", 0)],
)
def test_settings_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"reconstruction {key}={value}"):
        ReconstructionSettings(**{key: value})


def test_temporary_files_go_with_the_run(
    teacher: MattingNetwork, frames: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _reconstruct(teacher, frames, replace(SETTINGS, steps=1, memory_mib=0))
    assert not list(tmp_path.rglob("ptq4vm-*"))


def test_relative_loss_does_not_depend_on_the_scale_of_the_error(teacher: MattingNetwork, frames: Tensor) -> None:
    settings = replace(SETTINGS, relative=True, round_weight=1.0)
    module = BlockReconstruction(
        teacher, quantize(teacher, TINY_PARTITION, W4A4, frames), TINY_PARTITION.blocks, frames, settings
    )
    rounding = [m for m in module.quantized.modules() if isinstance(m, AdaRound)]
    totals = []
    for scale in (1.0, 1e-3):
        module._reference = torch.tensor(4.0 * scale)
        totals.append(float(module._with_regularizer(torch.tensor(2.0 * scale), 2.0, rounding)))
    undecided = sum(float(m.regularizer(2.0)) for m in rounding) / sum(m.rounding.numel() for m in rounding)
    assert totals == pytest.approx([0.5 + undecided] * 2, rel=1e-5)
