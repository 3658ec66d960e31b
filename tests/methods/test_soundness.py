"""Training that leaves the finite numbers ends with the stage's and the tensor's name, and nothing of it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from networks import TINY_PARTITION, disc_clips, quantize
from ptq4vm.errors import TrainingError
from ptq4vm.methods.closed_form import ClosedFormRounding, ClosedFormSettings
from ptq4vm.methods.gac import GACSettings, GlobalAffineCalibration
from ptq4vm.methods.soundness import check_learned
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.insert import quantized_layers
from ptq4vm.quant.layers import Affine
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
W4A8 = QuantSpec(WeightSpec(4), ActivationSpec(8, observer="minmax"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("body.0.bias", float("nan")), ("body.0.affine.scale", 1000.0), ("body.0.affine.scale", -1000.0)],
)
def test_tensors_are_named(teacher: MattingNetwork, key: str, value: float) -> None:
    network = quantize(teacher, TINY_PARTITION, W4A8, disc_clips(1).frames)
    layer = quantized_layers(network)["body.0"]
    layer.affine = Affine(1)
    check_learned(network, "GAC")
    with torch.no_grad():
        (layer.bias if key.endswith("bias") else layer.affine.log_scale).fill_(value)
    with pytest.raises(TrainingError, match=f"GAC led '{key}' out of the finite numbers"):
        check_learned(network.get_submodule("body"), "GAC", "body")


def test_the_last_step_of_gac_is_looked_at_too(teacher: MattingNetwork, tmp_path: Path) -> None:
    batch = disc_clips(2)
    network = quantize(teacher, TINY_PARTITION, W4A8, batch.frames)
    module = GlobalAffineCalibration(network, GACSettings(epochs=1, affine_lr=1000.0, flow_weight=0.0))
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=[ModelCheckpoint(tmp_path)], **QUIET)
    with pytest.raises(TrainingError, match=r"GAC led '.*affine\.scale'"):
        trainer.fit(module, DataLoader([batch], batch_size=None))
    assert not list(tmp_path.iterdir())


def test_a_block_in_closed_form_is_looked_at_before_it_is_kept(teacher: MattingNetwork) -> None:
    frames = disc_clips(2).frames
    network = quantize(teacher, TINY_PARTITION, W4A8, frames)
    quantized_layers(network)["body.0"].bias.fill_(float("inf"))
    settings = ClosedFormSettings(samples=64, candidates=2)
    module = ClosedFormRounding(teacher, network, TINY_PARTITION.blocks, frames, settings)
    kept: list[str] = []
    module.finished = lambda block, seconds: kept.append(block)
    with pytest.raises(TrainingError, match=r"closed form led 'body\.0\.bias'"):
        pl.Trainer(accelerator="cpu", max_epochs=1, enable_checkpointing=False, **QUIET).fit(module)
    module.teardown("fit")
    assert kept == ["stem"]
