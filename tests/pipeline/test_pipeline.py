from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from commands import Done, Workplace, difference, draw_videomatte, files
from ptq4vm.errors import CheckpointError
from ptq4vm.evaluation.evaluator import MattingEvaluation
from ptq4vm.pipeline.training import Training
from ptq4vm.runs.progress import RunState, fingerprint, newest_checkpoint

TinyRun = tuple[Path, Done]


class Killed(BaseException):
    """Ends a run as a kill would: nothing in the library catches it."""


class Stop(pl.Callback):
    """Raises in the given batch of the given epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Killed


Stopper = Callable[[str, int, int], contextlib.AbstractContextManager[None]]


@pytest.fixture
def stop_training() -> Stopper:
    """Make runs of a stage end in a batch of an epoch."""

    @contextlib.contextmanager
    def stop(stage: str, epoch: int, batch: int) -> Iterator[None]:
        fit = Training._fit

        def stopping(self: Training, name: str, *args: Any, **kwargs: Any) -> None:
            if name == stage:
                kwargs["callbacks"] = [*kwargs.get("callbacks", []), Stop(epoch, batch)]
            fit(self, name, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Training, "_fit", stopping)
            yield

    return stop


def goes_on(folder: Path, done: Done, reference: Path) -> None:
    """Check that a resumed run ended as the uninterrupted one did."""
    assert done.status == 0, done.out + done.err
    assert difference(folder, reference) == []
    for name in ("metrics.json", "quantizer.yaml"):
        text = (folder / name).read_text().replace(str(folder), str(reference))
        assert text == (reference / name).read_text()
    assert {f for f in files(folder) if f.startswith("sheets")} == {f for f in files(reference) if "sheets" in f}


def test_killed_in_a_block_goes_on_there_and_ends_bit_identical(
    tiny_run: TinyRun, workplace: Workplace, tmp_path: Path, stop_training: Stopper
) -> None:
    with stop_training("biq", 9, 1), pytest.raises(Killed):
        workplace.quantize(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    done = workplace.quantize(tmp_path)
    goes_on(tmp_path, done, tiny_run[0])
    assert "BIQ: 9 of 24 blocks were done before" in done.out
    assert done.out.count("] - block ") == 24 - 9 and "block backbone.features.9:" in done.out
    assert "evaluating rtn" not in done.out
    timing = [json.loads((folder / "timing.json").read_text()) for folder in (tmp_path, tiny_run[0])]
    assert list(timing[0]["blocks"]) == list(timing[1]["blocks"])
    assert timing[0]["stages"]["biq"] > sum(timing[0]["blocks"].values()), "seconds of both runs are added up"
    assert {"logs/biq/metrics.csv", "logs/biq-2/metrics.csv"} <= files(tmp_path)


def test_killed_by_the_system_in_a_block(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "ptq4vm", "quantize", *workplace.tiny(tmp_path)]
    environment = {**os.environ, "PTQ4VM_CACHE": str(workplace.cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not (tmp_path / "state" / "biq.safetensors").exists():
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "model.safetensors").exists()
    done = workplace.quantize(tmp_path)
    goes_on(tmp_path, done, tiny_run[0])
    assert "blocks were done before" in done.out


class Signal(pl.Callback):
    """Sends this process a signal in the first batch of the third epoch."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (2, 0):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals(workplace: Workplace, tmp_path: Path, number: int, status: int, word: str) -> None:
    fit = Training._fit
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Training, "_fit", lambda *a, **k: fit(*a, **k, callbacks=[Signal(number)]))
            done = workplace.quantize(tmp_path)
        after = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert done.status == status and word in done.err and "the same command goes on" in done.err
    assert "Traceback" not in done.err
    assert after is signal.default_int_handler
    timing = json.loads((tmp_path / "state" / "progress.json").read_text())["timing"]
    assert list(timing["blocks"]) == ["backbone.features.0", "backbone.features.1"]


def test_sigterm_during_an_evaluation_is_not_lost(workplace: Workplace, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        begin = MattingEvaluation.on_test_epoch_start
        patch.setattr(
            MattingEvaluation, "on_test_epoch_start", lambda self: (os.kill(os.getpid(), signal.SIGTERM), begin(self))
        )
        done = workplace.quantize(tmp_path, "bits=fp32,w8a8", "-m")
    assert done.status == 143 and "terminated" in done.err
    assert not list(tmp_path.glob("*w8a8*")), "the sweep goes no further"


@pytest.fixture
def before_gac(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A run folder as it is once BIQ has been evaluated."""
    (tmp_path / "state").mkdir()
    for name in ("start.safetensors", "biq.safetensors"):
        shutil.copy(tiny_run[0] / "state" / name, tmp_path / "state")
    notes = json.loads((tiny_run[0] / "state" / "progress.json").read_text())
    notes["finished"] = False
    del notes["results"]["gac"]
    (tmp_path / "state" / "progress.json").write_text(json.dumps(notes))
    return tmp_path


def test_killed_in_gac_goes_on_at_that_epoch_without_pickle(
    tiny_run: TinyRun,
    workplace: Workplace,
    before_gac: Path,
    stop_training: Stopper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stop_training("gac", 1, 1), pytest.raises(Killed):
        workplace.quantize(before_gac)
    folder = before_gac / "state" / "gac"
    assert [path.name for path in folder.iterdir()] == ["epoch=0000.ckpt"]
    loads: list[bool | None] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (loads.append(k.get("weights_only")), load(*a, **k))[1])
    done = workplace.quantize(before_gac)
    goes_on(before_gac, done, tiny_run[0])
    assert loads and all(value is True for value in loads)
    assert "24 of 24 blocks" in done.out and "] - block " not in done.out
    assert "GAC goes on after epoch=0000" in done.out
    assert not folder.exists(), "nothing is left of it once the stage is done"


def test_damaged_checkpoint_of_gac_falls_back(
    tiny_run: TinyRun,
    workplace: Workplace,
    before_gac: Path,
    stop_training: Stopper,
) -> None:
    folder = before_gac / "state" / "gac"
    with stop_training("gac", 1, 0), pytest.raises(Killed):
        workplace.quantize(before_gac)
    first = (folder / "epoch=0000.ckpt").read_bytes()
    with stop_training("gac", 2, 1), pytest.raises(Killed):
        workplace.quantize(before_gac)
    second = (folder / "epoch=0001.ckpt").read_bytes()
    (folder / "epoch=0001.ckpt").write_bytes(second[: len(second) // 2])
    (folder / "epoch=0000.ckpt").write_bytes(first)
    done = workplace.quantize(before_gac)
    goes_on(before_gac, done, tiny_run[0])
    assert "epoch=0001.ckpt is damaged" in done.out and "GAC goes on after epoch=0000" in done.out


def test_newest_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    for epoch in range(3):
        torch.save({"weights": torch.arange(1000.0)}, tmp_path / f"epoch={epoch:04d}.ckpt")
    torch.save({}, tmp_path / ".epoch=0009-half.ckpt")
    whole = (tmp_path / "epoch=0002.ckpt").read_bytes()
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch=0002.ckpt"
    flipped = bytearray(whole)
    flipped[whole.index(torch.arange(1000.0).numpy().tobytes()) + 50] ^= 1
    (tmp_path / "epoch=0002.ckpt").write_bytes(flipped)
    (tmp_path / "epoch=0001.ckpt").write_bytes(b"")
    assert newest_checkpoint(tmp_path) == tmp_path / "epoch=0000.ckpt"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".epoch=0009-half.ckpt", "epoch=0000.ckpt"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("preset.reconstruction.scale_lr=1000",), "backbone.features"),
        (("method.biq=false", "preset.gac.affine_lr=1000"), "GAC"),
    ],
)
def test_nan_in_a_loss(workplace: Workplace, tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    line = workplace.quantize(tmp_path, *arguments).line()
    assert "loss of" in line and named in line and "lower" in line
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / "metrics.json").exists()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 1 MiB: what a full disk does to a long write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(workplace: Workplace, tmp_path: Path, small_disk: None) -> None:
    line = workplace.quantize(tmp_path / "run", "method=rtn").line()
    assert str(tmp_path / "run") in line and "cannot write" in line and "choose another" in line
    left = files(tmp_path / "run")
    hydra = {f for f in left if f.startswith(".hydra/")}
    assert left == {".lock", "quantize.log", "run.json", "state/progress.json", *hydra}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_full_disk_in_gac(workplace: Workplace, before_gac: Path, small_disk: None) -> None:
    kept = files(before_gac)
    line = workplace.quantize(before_gac).line()
    assert "epoch=0000.ckpt" in line and "cannot write" in line and "choose another" in line
    assert {f for f in files(before_gac) - kept if not f.startswith((".hydra", "logs"))} == {
        ".lock",
        "quantize.log",
        "run.json",
    }


def test_no_evaluation_clips(workplace: Workplace, tmp_path: Path) -> None:
    data = draw_videomatte(tmp_path / "data", evaluation=False)
    done = workplace.quantize(tmp_path / "run", f"data.root={data}", "method=rtn")
    assert done.status == 0 and done.err == ""
    assert "[WARNING] - the dataset has no evaluation clips" in done.out
    assert {"model.safetensors", "quantizer.yaml", "timing.json"} <= files(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    clips = ["data=videomatte", "data.pairs_per_clip=1", f"data.root={data}"]
    line = workplace.run("evaluate", f"checkpoint={tmp_path / 'run'}", *clips, f"run_dir={tmp_path}/e").line()
    assert "no evaluation clips" in line


def test_calibrating_on_evaluation_clips_warns(workplace: Workplace, tmp_path: Path) -> None:
    arguments = [a for a in workplace.tiny(tmp_path, "method=rtn") if not a.startswith("data")]
    done = workplace.run("quantize", *arguments, "data=folder", f"data.root={workplace.data / 'eval'}")
    assert done.status == 0
    assert "[WARNING] - 2 evaluation clips, as set/a, are calibrated on too" in done.out


def test_run_state(tmp_path: Path) -> None:
    identity = fingerprint(seed=1, preset={"a": 1})
    state = RunState(tmp_path, identity)
    state.put("x", [1])
    assert RunState(tmp_path, identity).get("x") == [1]
    with pytest.raises(CheckpointError, match=r"other settings \(preset\)"):
        RunState(tmp_path, fingerprint(seed=1, preset={"a": 2}))
    with pytest.raises(CheckpointError, match=r"other settings \(more, seed\)"):
        RunState(tmp_path, fingerprint(seed=2, preset={"a": 1}, more=0))
    (tmp_path / "state" / "progress.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"progress\.json is damaged"):
        RunState(tmp_path, identity)


WHOLE = {
    "timing": {"stages": {"rtn": 1.5}, "blocks": {"a": 1}},
    "shared": ["biq"],
    "steps": {"gac": 4},
    "results": {"rtn": {"mean": {"mad": 3.5}, "clips": {"a": {"mad": 3}}}},
    "layers": {"a.0": 0.1},
    "mixed_bits": {"weight_bits": {"a": 4}, "activation_bits": {}},
    "finished": True,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timing", {"stages": {"rtn": None}, "blocks": {}}),
        ("timing", {"stages": {}}),
        ("timing", [1]),
        ("shared", "biq"),
        ("steps", {"gac": "x"}),
        ("results", {"rtn": {"mean": {"mad": None}, "clips": {}}}),
        ("results", {"rtn": {"mean": {}, "clips": {"a": {"mad": [1]}}}}),
        ("results", {"rtn": 1}),
        ("layers", {"a.0": {}}),
        ("mixed_bits", {"weight_bits": {"a": True}, "activation_bits": {}}),
        ("finished", 1),
        ("fingerprint", {"seed": 1}),
    ],
)
def test_notes_of_another_kind_are_damaged_ones(tmp_path: Path, name: str, value: object) -> None:
    notes = {"fingerprint": {"seed": "1"}, **WHOLE}
    RunState(tmp_path, {"seed": "1"})
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "progress.json").write_text(json.dumps(notes))
    assert RunState(tmp_path, {"seed": "1"}).get("steps") == {"gac": 4}
    (tmp_path / "state" / "progress.json").write_text(json.dumps({**notes, name: value}))
    with pytest.raises(CheckpointError, match=r"progress\.json is damaged .*overwrite=true"):
        RunState(tmp_path, {"seed": "1"})
