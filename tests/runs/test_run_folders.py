"""What belongs to whom: run folders carry a mark, are used by one process at a time, and get over damage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptq4vm.errors import CheckpointError, ConfigError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.pipeline.judging import departures, warn_of_departures
from ptq4vm.quant.names import TENSORS
from ptq4vm.report.page import write_report
from ptq4vm.runs.layout import (
    LOCK,
    METRICS,
    NOTES,
    SHEETS,
    STATE,
    check_evaluation_folder,
    check_run_folder,
    clear_run_folder,
    describe_run,
    folder_name,
    occupied,
)
from ptq4vm.runs.progress import RunState
from sample_runs import write_run


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("somebody's", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [METRICS, TENSORS, "run.json", f"{STATE}/mind.txt", f"{SHEETS}/bed.png"])
def test_what_is_not_of_a_run_is_neither_replaced_nor_removed(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name, "logs/diary.txt")
    before = content(tmp_path)
    clear_run_folder(tmp_path)
    with pytest.raises(ConfigError, match="which is not of a run: choose another run_dir"):
        check_run_folder(tmp_path)
    with pytest.raises(ConfigError, match="which is not of a run"):
        RunState(tmp_path, {})
    assert content(tmp_path) == before


def test_a_run_is_replaced_where_it_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "notes.txt")
    check_run_folder(tmp_path)
    RunState(tmp_path, {"seed": "0"}).put("finished", True)
    fill(tmp_path, METRICS, TENSORS, f"{SHEETS}/a.png")
    check_run_folder(tmp_path)
    clear_run_folder(tmp_path)
    assert list(content(tmp_path)) == ["notes.txt"]
    describe_run(tmp_path, {"command": "ptq4vm quantize bits=w4a4"})  # killed before its first step
    fill(tmp_path, f"{STATE}/start.safetensors")
    check_run_folder(tmp_path)


def test_an_evaluation_replaces_evaluations_alone(tmp_path: Path) -> None:
    check_evaluation_folder(tmp_path)
    (tmp_path / METRICS).write_text('{"mean": {}, "clips": {}, "stages": {}}', encoding="utf-8")
    check_evaluation_folder(tmp_path)
    fill(tmp_path, METRICS)
    with pytest.raises(ConfigError, match=r"holds metrics\.json, which is not of an evaluation"):
        check_evaluation_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"holds a run, whose metrics\.json would be replaced"):
        check_evaluation_folder(write_run(tmp_path / "runs"))


def test_a_page_of_others_stays(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs")
    fill(tmp_path / "site", "index.html")
    with pytest.raises(ConfigError, match=r"index\.html is no report of ours"):
        write_report([run], tmp_path / "site")
    page = write_report([run], tmp_path / "report")
    assert write_report([run], tmp_path / "report") == page


@pytest.mark.parametrize("text", ["seed=1", "bits=w4a4,method=ptq4vm", "model.weights=a.pth"])
def test_plain_names_of_jobs_stay(text: str) -> None:
    assert folder_name(text) == text


@given(st.text(), st.text())
def test_a_name_is_one_folder_and_its_own(one: str, other: str) -> None:
    name = folder_name(one)
    assert Path("a", name).parent == Path("a") and name not in ("", ".", "..")
    assert len(name.encode()) < 255 and "\n" not in name
    assert one == other or folder_name(other) != name


@pytest.mark.parametrize("text", ["model.weights=../../x", "/etc", "..", ".", "", "x" * 300, "é" * 200])
def test_names_that_would_lead_elsewhere(text: str) -> None:
    name = folder_name(text)
    assert "/" not in name and 0 < len(name.encode()) <= 210 and name.strip(".")


HOLDER = """
import sys
from collections.abc import Callable
from filelock import FileLock

lock = FileLock(sys.argv[1])
lock.acquire()
print("in", flush=True)
input()
"""


def test_one_process_is_in_a_run_folder_at_a_time(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with occupied(run), occupied(run):  # the same process may come in again
        assert (run / LOCK).read_text(encoding="utf-8").startswith("pid ")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        with (
            pytest.raises(CheckpointError, match=r"run is in use by another process \(.*pid \d+") as caught,
            occupied(run),
        ):
            pass
        assert "\n" not in str(caught.value)
        other.kill()
    with occupied(run):
        pass  # what was killed keeps nobody out


def test_processes_of_one_run_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with occupied(tmp_path / "run"):
        assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not tensors",
        lambda data: data[:-50],
        lambda data: data.replace(b'"a"', b'"b"'),
        lambda data: data.replace(b'"units":"3"', b'"units":"9"'),
        lambda data: data.replace(b'"sha256"', b'"sha257"'),
        lambda data: data[:-1] + b"A",
    ],
)
def test_damaged_tensors_are_made_again(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    state = RunState(tmp_path, {})
    state.put("x", 1)
    state.save_tensors("start", {"a": torch.ones(100)}, {"units": "3"})
    found = state.load_tensors("start")
    assert found is not None and found[1]["units"] == "3"
    path = state.path("start.safetensors")
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    assert state.load_tensors("start") is None
    assert "start.safetensors is damaged" in caplog.text and "making it again" in caplog.text
    assert (tmp_path / STATE / NOTES).is_file()


def result(**mads: float) -> EvaluationResult:
    return EvaluationResult({"mad": 1.0}, {clip: {"mad": mad} for clip, mad in mads.items()}, {})


def test_clips_that_cannot_be_trusted_are_named(caplog: pytest.LogCaptureFixture) -> None:
    before, after = result(a=10, b=10, c=0.1, d=40), result(a=14, b=87, c=0.4, d=90)
    assert departures(before, after) == {"b": 8.7, "d": 2.25}, "small ones cannot be seen"
    warn_of_departures({"fp32": before, "biq": before, "gac": after})
    assert len(caplog.records) == 1 and "2 of 4 clips" in caplog.text and "b (8.7 times), d (2.2 times)" in caplog.text
    caplog.clear()
    warn_of_departures({"fp32": before, "gac": before})
    warn_of_departures({"fp32": before})
    assert not caplog.records
