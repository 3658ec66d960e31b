"""A damaged file of a run is named and left out; the report goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from commands import Done, Workplace

GARBAGE = {"noise": b"\xff\xfe\x00\x01", "empty": b"", "a list": b"[1, 2]", "a text": b'"x"', "deep": b"[" * 20000}


@pytest.mark.parametrize("how", [*GARBAGE, "a folder"])
@pytest.mark.parametrize("name", ["metrics.json", "run.json", "timing.json", "layers.json"])
def test_a_damaged_file_never_ends_a_report(
    workplace: Workplace, tiny_run: tuple[Path, Done], tmp_path: Path, name: str, how: str
) -> None:
    for copy in ("good", "bad"):
        shutil.copytree(tiny_run[0], tmp_path / "runs" / copy)
    path = tmp_path / "runs" / "bad" / name
    path.unlink()
    path.mkdir() if how == "a folder" else path.write_bytes(GARBAGE[how])
    done = workplace.run("report", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    assert done.status == 0 and str(path) in done.err, done.err
    assert (tmp_path / "out" / "index.html").is_file()
