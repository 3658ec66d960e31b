"""GAC in two processes over gloo, against one process with the double batch."""

from __future__ import annotations

import copy
import csv
import statistics
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from commands import Workplace
from networks import TINY_PARTITION, quantize, tiny_folded
from ptq4vm import api
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.data.calibration.sampling import EpochShuffleSampler
from ptq4vm.errors import ConfigError, TrainingError
from ptq4vm.flow.cache import FlowCache
from ptq4vm.methods.gac import GACSettings, GlobalAffineCalibration, TeacherTargets
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec
from ptq4vm.system.trainers import interruptible, trainers

SETTINGS = GACSettings(
    epochs=4,
    affine_lr=2e-3,
    scale_lr=5e-4,
    granularity="channel",
    flow_weight=0.5,
    trust=0.3,
    teacher_weight=0.5,
    state_weight=0.5,
    warmup=0.1,
    burn_in=1,
)
SPAWN = {"devices": 2, "strategy": "ddp_spawn"}


def datamodule(workplace: Workplace, batch_size: int, clips: int = 8) -> MattingDataModule:
    """Samples whose flow leads out of the crop here and there: each has another number of visible pixels."""
    flows = FlowCache(workplace.cache / "flow", api.load_flow("dis"))
    data = api.load_data("videomatte", root=str(workplace.data), pairs_per_clip=1)
    return MattingDataModule(data, flows, clip_length=4, crop=(48, 48), clips=clips, batch_size=batch_size)


def start(data: MattingDataModule) -> tuple[MattingNetwork, TeacherTargets]:
    teacher = tiny_folded()
    clips = data.calibration_clips()
    quantized = quantize(teacher, TINY_PARTITION, QuantSpec(WeightSpec(4), ActivationSpec(3)), clips[0].frames)
    return quantized, TeacherTargets.compute(teacher, clips)


def losses(folder: Path, module: GlobalAffineCalibration, data: MattingDataModule, **options: Any) -> dict[str, Any]:
    """Train, and return the logged curves."""
    build = partial(pl.Trainer, accelerator="cpu", log_every_n_steps=1, enable_progress_bar=False)
    quiet = {"enable_checkpointing": False, "enable_model_summary": False}
    trainer = trainers(folder, lambda callbacks, **arguments: build(callbacks=callbacks[1:], **arguments))(
        max_epochs=module.settings.epochs, logger=CSVLogger(folder, name="logs", version=""), **quiet, **options
    )
    with interruptible(trainer):
        trainer.fit(module, datamodule=data)
    with (folder / "logs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0] if name.startswith("gac/")}


def test_two_processes_follow_one_with_the_double_batch(workplace: Workplace, tmp_path: Path) -> None:
    double = datamodule(workplace, 4)
    quantized, targets = start(double)
    alone = GlobalAffineCalibration(copy.deepcopy(quantized), SETTINGS, targets)
    wanted = losses(tmp_path / "one", alone, double)
    together = GlobalAffineCalibration(copy.deepcopy(quantized), SETTINGS, targets)
    found = losses(tmp_path / "two", together, datamodule(workplace, 2), **SPAWN)
    assert set(found) == {"gac/loss", "gac/alpha", "gac/flow", "gac/teacher", "gac/states"}
    for name, curve in wanted.items():
        assert len(curve) == 2 * SETTINGS.epochs
        apart = [abs(x - y) / x for x, y in zip(curve, found[name], strict=True)]
        assert apart[0] < 1e-5, name  # every loss is that of the whole batch
        assert statistics.median(apart) < 2e-6, name  # a value that rounds the other way may show in single steps
    assert found["gac/loss"] == pytest.approx(wanted["gac/loss"], rel=1e-4)
    before, after = quantized.state_dict(), together.quantized.state_dict()  # came back into this process
    for key, value in alone.quantized.state_dict().items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-5)
    scales = [key for key in before if key.endswith("input_quantizer.log_scale")]
    assert max(float((after[key] - before[key]).abs().max()) for key in scales) > 3e-4, "activation scales learn"


def test_samples_are_shared_without_twins() -> None:
    for length in (8, 9):
        whole = EpochShuffleSampler(length, seed=3)
        parts = [EpochShuffleSampler(length, seed=3, processes=2, rank=rank) for rank in range(2)]
        for epoch in (0, 1):
            for sampler in (whole, *parts):
                sampler.set_epoch(epoch)
            order, first, second = list(whole), *(list(part) for part in parts)
            assert len(first) == len(second) == len(parts[0]) == length // 2
            for begin in range(0, 4, 2):  # batches of 2 each are the batch of 4
                wanted = order[2 * begin : 2 * begin + 4]
                assert {*first[begin : begin + 2], *second[begin : begin + 2]} == set(wanted)
            assert not set(first) & set(second)


def test_an_error_in_one_process_is_that_error_here(workplace: Workplace, tmp_path: Path) -> None:
    data = datamodule(workplace, 2)
    quantized, targets = start(data)
    targets.alpha[1][-1, 0, 0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"^the loss of GAC became nan at step"):
        losses(tmp_path, GlobalAffineCalibration(quantized, SETTINGS, targets), data, **SPAWN)


def test_too_few_samples_for_the_processes(workplace: Workplace) -> None:
    data = datamodule(workplace, 2, clips=1)
    data.trainer = SimpleNamespace(world_size=2, global_rank=1)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"calibration\.clips=1 is too few for 2 processes"):
        data.train_dataloader()


@pytest.mark.parametrize("options", [{"strategy": "ddp"}, {"strategy": "ddp_spawn", "num_nodes": 2}])
def test_running_the_whole_command_in_every_process_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    build = partial(pl.Trainer, accelerator="cpu", devices=2, logger=False)
    with pytest.raises(ConfigError, match=r"whole command.*ddp_spawn"):
        trainers(tmp_path, build)(**options)
    trainers(tmp_path, build)(strategy="ddp_spawn")
