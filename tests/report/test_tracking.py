from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from commands import Workplace
from ptq4vm.errors import ConfigError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.metrics import METRIC_NAMES
from ptq4vm.report.tracking import (
    RunInfo,
    TensorBoardTracking,
    Tracking,
    WandbTracking,
    log_sweep_table,
    wandb_logged_in,
    wandb_mode,
)
from tracker_files import read_wandb

RESULTS = {
    stage: EvaluationResult({name: scale * (i + 1.0) for i, name in enumerate(METRIC_NAMES)}, {}, {})
    for stage, scale in (("fp32", 1.0), ("rtn", 3.0))
}
ROWS = [
    {"name": "bits=w4a4", "method": "ptq4vm", "mad": 19.5, "stored_bytes": 1_900_000},
    {"name": "bits=w2a2", "method": "ptq4vm", "mad": None, "stored_bytes": "failed"},
]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nobody has logged in; gives the netrc file to write one into."""
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    (tmp_path / "sheets").mkdir()
    Image.new("RGB", (40, 20), (200, 10, 10)).save(tmp_path / "sheets" / "set__a.png")
    return tmp_path / "sheets"


def test_offline_unless_logged_in(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wandb_logged_in() and wandb_mode(None) == "offline"
    nobody.write_text("machine somewhere.example login user password " + "k" * 40 + "\n")
    assert not wandb_logged_in(), "a key of another server"
    monkeypatch.setenv("WANDB_BASE_URL", "https://somewhere.example")
    assert wandb_logged_in() and wandb_mode(None) == "online"
    nobody.write_text("machine somewhere.example login\n")
    assert not wandb_logged_in(), "a broken file is no login"
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert wandb_logged_in() and wandb_mode(None) == "online"


@pytest.mark.parametrize(("offline", "mode"), [(True, "offline"), (False, "online")])
def test_override_decides(offline: bool, mode: str, nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(offline) == mode
    assert wandb_mode(None) == "disabled"


@pytest.mark.parametrize(("kind", "package"), [(WandbTracking, "wandb"), (TensorBoardTracking, "tensorboard")])
def test_missing_package_is_one_line(
    kind: type[Tracking], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"logger={package} needs {package}.*pip install 'ptq4vm\[{package}\]'"):
        kind(RunInfo(tmp_path, "run"))  # type: ignore[call-arg, arg-type]


def test_wandb_run_of_a_command(workplace: Workplace, tmp_path: Path, nobody: Path) -> None:
    run = tmp_path / "mine"
    done = workplace.quantize(run, "logger=wandb", "logger.tags=[tiny]")
    assert done.status == 0 and done.err == "", done.err
    assert "W&B is offline" in done.out and "wandb sync" in done.out
    (found,) = read_wandb(run)
    assert (found.name, found.group, found.job_type, found.exit_code) == ("mine", "", "quantize", 0)
    assert found.config["preset"]["gac"]["epochs"] == 3 and found.config["bits"] == {"weight": 4, "activation": 4}
    with (run / "logs" / "gac" / "metrics.csv").open() as file:
        losses = [float(row["gac/loss"]) for row in csv.DictReader(file) if row["gac/loss"]]
    assert len(losses) == 6 and found.logged("gac/loss") == pytest.approx(losses, rel=1e-5)
    block = next(key for row in found.history for key in row if key.endswith("/project_mat"))
    assert len(found.logged(block)) == 2
    metrics = json.loads((run / "metrics.json").read_text())
    for stage, values in metrics["stages"].items():
        assert found.logged(f"metrics/{stage}/mad") == [pytest.approx(values["mad"])]
    assert all(found.summary[name] == pytest.approx(metrics["mean"][name]) for name in METRIC_NAMES)
    (sheet,) = found.logged("sheets/set__a.path")
    assert sheet in found.files
    assert any(path.startswith("media/table/metrics/stages") for path in found.files)
    # the same command again: nothing is trained, nothing is logged a second time
    assert workplace.quantize(run, "logger=wandb", "logger.tags=[tiny]").status == 0
    assert len(read_wandb(run)) == 1


def test_wandb_resumes_its_run_and_notes_a_failure(tmp_path: Path, sheets: Path, nobody: Path) -> None:
    info = RunInfo(tmp_path, "bits=w4a4", "sweep", {"seed": 3})
    with pytest.raises(KeyboardInterrupt), WandbTracking(info) as tracking:
        tracking("biq")
        raise KeyboardInterrupt
    time.sleep(1.1)  # folders of offline runs are named by the second
    with WandbTracking(info, group="mine") as tracking:
        tracking("gac")
        tracking.results(RESULTS, sheets)
    first, second = sorted(read_wandb(tmp_path), key=lambda run: run.exit_code or 0, reverse=True)
    assert first.id == second.id and (first.exit_code, second.exit_code) == (1, 0)
    assert (first.group, second.group, second.config["seed"]) == ("sweep", "mine", 3)
    assert second.logged("metrics/rtn/mad") == [3.0] and not first.logged("metrics/rtn/mad")
    assert not sheets.with_name("logs").joinpath("biq").exists(), "a CSV file is written when there is a loss"


def test_wandb_table_of_a_sweep(tmp_path: Path, nobody: Path) -> None:
    texts = [{key: "" if value is None else str(value) for key, value in row.items()} for row in ROWS]
    log_sweep_table(texts, WandbTracking(RunInfo(tmp_path, "grid", "grid")))
    (found,) = read_wandb(tmp_path)
    assert (found.group, found.job_type, found.exit_code) == ("grid", "sweep", 0)
    (path,) = (name for name in found.files if name.startswith("media/table/results"))
    (folder,) = (tmp_path / "logs" / "wandb").glob("offline-run-*")
    table = json.loads((folder / "files" / path).read_text())
    assert table["columns"] == list(ROWS[0]) and table["data"] == [list(row.values()) for row in ROWS]


def test_tensorboard_events_of_a_command(workplace: Workplace, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = workplace.quantize(tmp_path, "logger=tensorboard")
    assert done.status == 0 and done.err == "", done.err
    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    with (tmp_path / "logs" / "gac" / "metrics.csv").open() as file:
        losses = [float(row["gac/loss"]) for row in csv.DictReader(file) if row["gac/loss"]]
    assert [event.value for event in events.Scalars("gac/loss")] == pytest.approx(losses, rel=1e-5)
    stages = json.loads((tmp_path / "metrics.json").read_text())["stages"]
    mad = [(event.step, event.value) for event in events.Scalars("metrics/mad")]
    assert mad == [(step, pytest.approx(values["mad"])) for step, values in enumerate(stages.values())]
    (picture,) = events.Images("sheets/set__a")
    with Image.open(tmp_path / "sheets" / "set__a.png") as sheet:
        assert (picture.width, picture.height) == sheet.size
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert "epochs: 3" in texts["configuration/text_summary"] and "| MAD |" in texts["metrics/text_summary"]
    before = sorted((tmp_path / "logs" / "tensorboard").iterdir())
    assert workplace.quantize(tmp_path, "logger=tensorboard").status == 0
    assert sorted((tmp_path / "logs" / "tensorboard").iterdir()) == before


def test_tensorboard_table_of_a_sweep(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_sweep_table(ROWS, TensorBoardTracking(RunInfo(tmp_path, "grid")))
    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard"))
    events.Reload()
    text = events.Tensors("results/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| bits=w4a4 | ptq4vm | 19.5 | 1900000 |" in text
