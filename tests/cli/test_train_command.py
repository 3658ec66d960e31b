"""``ptq4vm train``: a whole small training, gone on with, opened by every other command; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from commands import Done, Workplace, difference, files
from ptq4vm import api, settings
from ptq4vm.data.classification import ImageFolder
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.methods.binary.matting import BinaryMatting, unclipped
from ptq4vm.methods.binary.schedule import MattingStage, PretrainingStage, Schedule
from ptq4vm.models.bivm.layers import binary_layers
from ptq4vm.pipeline.binary import initialise

STAGE = "schedule.stages.distill"
TINY = (
    f"{STAGE}.clips=4",
    f"{STAGE}.size=[64,64]",
    f"{STAGE}.batch_size=2",
    f"{STAGE}.epochs=2",
    "schedule.stages.norms.clips=2",
    "schedule.stages.norms.size=[64,96]",
    "trainer=cpu",
    "data.pairs_per_clip=1",
)


@pytest.fixture
def float_network(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float network's weights where they are looked for."""
    cached = workplace.cache / "weights" / "rvm_mobilenetv3.safetensors"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(workplace.weights.read_bytes())
        from ptq4vm.models.weights.sources import sha256

        cached.with_name(cached.name + ".sha256").write_text(f"{sha256(cached)}  {cached.name}\n")


def train(workplace: Workplace, run_dir: Path, *arguments: str) -> Done:
    return workplace.run(
        "train", "data=videomatte", f"data.root={workplace.data}", *TINY, f"run_dir={run_dir}", *arguments
    )


@pytest.fixture
def trained(workplace: Workplace, float_network: None, tmp_path: Path) -> Path:
    done = train(workplace, tmp_path / "run", "model=bivm")
    assert done.status == 0, done.err
    assert "0.01 G operations a frame, 0.68 MB in bits" in done.out and "trained" in done.out
    return tmp_path / "run"


def test_a_trained_network_is_a_checkpoint_like_any_other(workplace: Workplace, trained: Path, tmp_path: Path) -> None:
    stages = json.loads((trained / "metrics.json").read_text())["stages"]
    assert list(stages) == ["fp32", "trained"]
    record = json.loads((trained / "run.json").read_text())
    assert record["status"] == "finished" and record["bits"] == {"weight": 1, "activation": 1}
    assert record["command"].startswith("ptq4vm train ") and record["steps"] == {"distill": 4, "norms": 0}
    assert list((trained / "sheets").glob("*")), "pictures are drawn"
    assert yaml.safe_load((trained / "quantizer.yaml").read_text())["label"] == "W1A1"
    network = api.load_checkpoint(trained)
    for layer in binary_layers(network).values():
        assert set(layer.weight.unique().tolist()) <= {-1.0, 1.0}
    done = workplace.evaluate(tmp_path / "again", f"checkpoint={trained}", "baseline=false")
    assert done.status == 0, done.err
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())["stages"]["quantized"]["mean"]
    assert again["mad"] == pytest.approx(stages["trained"]["mean"]["mad"], abs=1e-6)
    film = next((workplace.data / "eval").rglob("com"))
    done = workplace.run("matte", f"checkpoint={trained}", f"input={film}", f"out={tmp_path / 'out'}")
    assert done.status == 0 and files(tmp_path / "out"), done.err


def test_a_float_twin_is_a_checkpoint_too(workplace: Workplace, float_network: None, tmp_path: Path) -> None:
    twin = ("model=rvm_reactnet", "model.arguments.binarizer=none", f"{STAGE}.epochs=0", f"{STAGE}.mimic_weight=0")
    done = train(workplace, tmp_path / "run", *twin)
    assert done.status == 0, done.err
    assert yaml.safe_load((tmp_path / "run" / "quantizer.yaml").read_text())["label"] == "FP32"
    assert api.load_checkpoint(tmp_path / "run").num_states == 4


def test_training_goes_on_where_it_was_and_gives_the_same(
    workplace: Workplace, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"

    def stop(self: BinaryMatting) -> None:
        if self.current_epoch == 1:
            raise ConfigError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(BinaryMatting, "on_train_epoch_end", stop)
        assert "stopped here" in train(workplace, other, "model=bivm").line()
    assert (other / "state" / "distill").is_dir() and not (other / "model.safetensors").exists()
    done = train(workplace, other, "model=bivm")
    assert done.status == 0, done.err
    assert difference(trained, other) == []
    before = (other / "model.safetensors").stat().st_mtime_ns
    done = train(workplace, other, "model=bivm")
    assert done.status == 0 and difference(trained, other) == []
    assert (
        "distill was done before" in done.out + done.err or before == (other / "model.safetensors").stat().st_mtime_ns
    )
    refused = train(workplace, other, "model=bivm", "seed=1").line()
    assert "other settings" in refused and "overwrite=true" in refused


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3", "stage4"])
def test_every_stage_of_the_paper_runs(workplace: Workplace, float_network: None, tmp_path: Path, stage: str) -> None:
    small = [f"schedule.stages.{stage}.{value}" for value in ("clips=2", "crop=[64,64]", "batch_size=1")]
    small += [f"schedule.stages.{stage}.clip_length=2"]
    others = [f"schedule.stages.{name}.epochs=0" for name in ("stage1", "stage2", "stage3", "stage4") if name != stage]
    others += [
        f"schedule.stages.{o.split('.')[2]}.{v}" for o in others for v in ("clips=1", "clip_length=2", "crop=[64,64]")
    ]
    arguments = [
        "data=videomatte",
        f"data.root={workplace.data}",
        "data.pairs_per_clip=1",
        "schedule=paper",
        "+trainer.fast_dev_run=true",
    ]
    done = workplace.run("train", "model=bivm", *arguments, *small, *others, "trainer=cpu", f"run_dir={tmp_path}")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == {stage: 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=rvm_mobilenetv3"], "model.family=rvm is not trained but quantized"),
        (["schedule=nonsense"], "schedule=nonsense is unknown: use one of paper, quick, transformer"),
        ([f"{STAGE}.labels=guess"], "labels='guess' is unknown: use one of truth, teacher"),
        ([f"{STAGE}.norms=guess"], "norms='guess' is unknown: use one of follow, measure"),
        ([f"{STAGE}.epochs=-1"], "epochs=-1: use 0 or more"),
        ([f"{STAGE}.downsample_ratio=2"], "downsample_ratio=2 is out of range: use 1 at most"),
        (["model.arguments.encoder=vit"], "unknown encoder 'vit'"),
        (["model.arguments.binarizer=ternary"], "binarizer=ternary is unknown"),
        (["teacher=null"], "give teacher=rvm_mobilenetv3"),
        (["schedule.pretraining.root=/nowhere"], "/nowhere is no folder"),
        ([f"{STAGE}.lr=1e30"], "out of range"),
        ([f"{STAGE}.lr=900", f"{STAGE}.encoder_lr=900", f"{STAGE}.epochs=30"], "not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_line(
    workplace: Workplace, float_network: None, tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert said in train(workplace, tmp_path / "run", *arguments).line()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_binary_network_is_not_quantized_without_weights(workplace: Workplace, tmp_path: Path) -> None:
    done = workplace.quantize(tmp_path, "model=bivm", "model.weights=null")
    assert "bivm has no published weights: train it (ptq4vm train model=bivm)" in done.line()


def pictures(root: Path, classes: int = 2) -> Path:
    for number in range(classes):
        folder = root / f"class {number}"
        folder.mkdir(parents=True)
        for index in range(3):
            noise = np.random.default_rng(index).integers(0, 60, (40, 30 + 10 * index, 3), dtype=np.uint8)
            Image.fromarray(noise + np.uint8(150 * number)).save(folder / f"{index}.png")
    return root


def test_pretraining_learns_classes_and_hands_the_encoder_on(tmp_path: Path) -> None:
    data = ImageFolder(pictures(tmp_path / "pictures"), 32)
    assert data.classes == ["class 0", "class 1"] and len(data) == 6
    picture, number = data[5]
    assert picture.shape == (3, 32, 32) and number == 1 and 0.5 < float(picture.mean()) < 1
    with pytest.raises(DataError, match="1 folders with pictures"):
        ImageFolder(pictures(tmp_path / "one", 1), 32)


def test_pretraining_is_a_stage_of_the_run(workplace: Workplace, float_network: None, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures")
    small = [f"schedule.pretraining.{v}" for v in (f"root={root}", "epochs=2", "size=64", "batch_size=3")]
    small += ["schedule.stages.norms.epochs=0", f"{STAGE}.epochs=0"]
    done = train(workplace, tmp_path / "run", "model=bivm", *small)
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == {"pretraining": 4}
    start, after = (load_file(tmp_path / "run" / "state" / f"{n}.safetensors") for n in ("pretraining", "distill"))
    assert all(torch.equal(start[key], after[key]) for key in start)
    torch.manual_seed(0)
    fresh = api.untrained("bivm").network.state_dict()
    learned = [k for k, v in fresh.items() if k.endswith(".weight") and not torch.equal(v, start[k])]
    assert learned and all(key.startswith("backbone.") for key in learned if ".wide.0." in key and "decoder" not in key)


def test_training_begins_with_the_float_networks_tensors_where_they_fit() -> None:
    ours, theirs = (
        api.untrained("rvm_reactnet").network,
        api.build_network("rvm", {"variant": "mobilenetv3"}, pretrained=False),
    )
    assert initialise(ours, theirs) > 300
    key = "decoder.decode1.conv.0.weight"
    torch.testing.assert_close(ours.state_dict()[key], theirs.state_dict()[key])
    assert initialise(api.untrained("bivm").network, theirs) < 30


@pytest.mark.parametrize("name", ["quick", "paper"])
def test_schedules_are_whole(name: str) -> None:
    schedule = api.load_schedule(name)
    assert isinstance(schedule.pretraining, PretrainingStage) and schedule.pretraining.root is None
    assert all(isinstance(stage, MattingStage) for stage in schedule.stages.values())
    assert next(iter(schedule.stages.values())).mimic_weight == 1e-4, "LBM in the first stage, as published"
    with pytest.raises(ConfigError, match=r"schedule.stages is empty"):
        Schedule({})
    with pytest.raises(ConfigError, match="steps is unknown"):
        settings.schedule({"stages": {"one": {"steps": 3}}})


def test_learning_lowers_the_loss() -> None:
    torch.manual_seed(0)
    network = api.untrained("bivm").network
    stage = MattingStage(epochs=1, lr=1e-3, encoder_lr=1e-3)
    module = BinaryMatting(network, None, stage)  # type: ignore[arg-type]
    frames, alpha = torch.rand(2, 2, 3, 64, 64), torch.zeros(2, 2, 1, 64, 64)
    alpha[..., 16:48] = 1
    from ptq4vm.types import ClipBatch

    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    found = []
    network.train()
    for _ in range(12):
        optimizer.zero_grad()
        losses = module._matting_losses(ClipBatch(frames, alpha))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        found.append(float(total.detach()))
    assert found[-1] < 0.8 * found[0]
    assert isinstance(module, pl.LightningModule)


def test_a_network_that_sees_background_everywhere_can_still_learn() -> None:
    raw = torch.tensor([-3.0, -0.1, 0.5, 1.2]).requires_grad_()
    alpha = unclipped(raw.clamp(0, 1), raw)
    assert alpha.tolist() == pytest.approx([0, 0, 0.5, 1])
    (alpha - torch.tensor([1.0, 0.0, 0.0, 1.0])).abs().sum().backward()
    assert raw.grad is not None and raw.grad[0] == -1 and raw.grad[2] == 1, "what is wrong is pulled"
