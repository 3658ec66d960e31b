"""`ptq4vm evaluate`: two folders, and frames of networks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from commands import Workplace, draw_clip, files


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_two_folders(workplace: Workplace, tmp_path: Path) -> None:
    for seed, (root, clip) in enumerate((r, c) for r in ("pred", "true") for c in ("a b", "ç")):
        folder = tmp_path / root / "set" / clip
        draw_clip({"pha": folder / "pha", "fgr": folder / "fgr"}, seed, frames=3)
    arguments = [f"pred={tmp_path / 'pred'}", f"true={tmp_path / 'true'}", f"run_dir={tmp_path / 'run'}"]
    done = workplace.run("evaluate", *arguments)
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(found["clips"]) == {"set/a b", "set/ç"} and set(found["stages"]) == {"folder"}
    assert list(found["mean"]) == ["mad", "mse", "grad", "conn", "dtssd", "fgr_mse"]
    assert "Fgr MSE" in done.out and "Conn" in done.out
    table = rows(tmp_path / "run" / "frames.csv")
    assert len(table) == 6 and [row["frame"] for row in table[:4]] == ["0", "1", "2", "0"]
    mads = [float(row["mad"]) for row in table if row["clip"] == "set/ç"]
    assert sum(mads) / 3 == pytest.approx(found["clips"]["set/ç"]["mad"])
    done = workplace.run("evaluate", *arguments, "metrics=hr", "data=folder")  # a missing data.root does not matter
    assert done.status == 0 and "SAD" in done.out and "Conn" not in done.out
    assert not (tmp_path / "run" / "sheets").exists()


def test_what_is_wrong_with_folders_is_one_line(workplace: Workplace, tmp_path: Path) -> None:
    run = f"run_dir={tmp_path / 'run'}"
    assert "pred= needs true=" in workplace.run("evaluate", f"pred={tmp_path}", run).line()
    assert "true= needs pred=" in workplace.run("evaluate", f"true={tmp_path}", run).line()
    line = workplace.run("evaluate", f"pred={tmp_path}", f"true={tmp_path / 'no'}", run).line()
    assert "no clips" in line
    assert "use lr or hr" in workplace.run("evaluate", "metrics=x", run).line()
    assert not any(name.endswith(".json") for name in files(tmp_path / "run"))


@pytest.mark.parametrize("metrics", ["lr", "hr"])
def test_frames_of_a_network(workplace: Workplace, tmp_path: Path, metrics: str) -> None:
    for kinds, clip in ((("com", "pha", "fgr"), "a"), (("com", "pha"), "b")):
        draw_clip({kind: tmp_path / "set" / clip / kind for kind in kinds}, 3)
    done = workplace.evaluate(tmp_path / "run", f"data.root={tmp_path}", f"metrics={metrics}")
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert ("sad" in found["mean"], "conn" in found["mean"]) == (metrics == "hr", metrics == "lr")
    assert found["mean"]["fgr_mse"] == found["clips"]["set/a"]["fgr_mse"] and "fgr_mse" not in found["clips"]["set/b"]
    table = rows(tmp_path / "run" / "frames.csv")
    assert [row["fgr_mse"] == "" for row in table] == [False] * 6 + [True] * 6
    assert {row["stage"] for row in table} == {"fp32"}
