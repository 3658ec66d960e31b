"""For tests of exported files: run folders of a random RVM, made in a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from commands import SIZE, save_weights
from networks import RVM_PARTITION, quantize
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.rvm.network import RVM
from ptq4vm.quant.checkpoint import CheckpointInfo, save_quantized
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec


def spec(bits: str, granularity: str = "mixed", placement: str = "input") -> QuantSpec:
    """``wXaY`` with min-max ranges, which are found quickly."""
    weight, activation = (int(part) for part in bits[1:].split("a"))
    return QuantSpec(
        WeightSpec(weight, observer="minmax"),
        ActivationSpec(activation, granularity=granularity, observer="minmax"),
        placement,
    )


def random_quantized(chosen: QuantSpec) -> MattingNetwork:
    """RVM with random weights, quantized on a few random frames."""
    network = RVM("mobilenetv3", "fast_guided_filter").eval()
    with tempfile.TemporaryDirectory() as folder:
        network.load_state_dict(load_file(save_weights(Path(folder) / "weights.safetensors")))
    fold_batch_norm(network, ("refiner", "project_seg")).requires_grad_(False)
    frames = torch.rand(1, 2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    return quantize(network, RVM_PARTITION, chosen, frames)


def write_run(folder: Path, chosen: QuantSpec, clips: Path | None = None) -> Path:
    """A run folder as ``ptq4vm quantize data=folder data.root=CLIPS`` leaves it, as far as export reads it."""
    network = random_quantized(chosen)
    model = {"family": "rvm", "arguments": {"variant": "mobilenetv3", "refiner": "fast_guided_filter"}}
    partition = resolve(network, RVM_PARTITION)
    data = {"_target_": "ptq4vm.data.datasets.folder.FolderDataset", "root": str(clips), "calibration_root": None}
    notes = {"method": {"name": "ptq4vm"}, "config": {"data": None if clips is None else data}}
    save_quantized(folder, network, CheckpointInfo(model, chosen, partition, notes))
    (folder / "state").mkdir()
    (folder / "state" / "progress.json").write_text('{"fingerprint": {"calibration_clips": "abc"}}')
    return folder
