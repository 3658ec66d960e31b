"""The notebooks run from top to bottom at tiny size, and are stored without outputs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from commands import Done, Workplace
from ptq4vm.report.exports import results_csv
from ptq4vm.runs.reading import load_runs

FOLDER = Path(__file__).parents[1] / "notebooks"


def executed(name: str, where: Path) -> str:
    """Run a notebook in a folder; gives all outputs as text."""
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(where)}}).execute()
    return json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"], ensure_ascii=False)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_quickstart(workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "DATA": "folder",
        "DATA_ROOT": workplace.data / "eval",
        "WEIGHTS": workplace.weights,
        "CACHE": workplace.cache,
    }
    values |= {"RUN_DIR": tmp_path / "run", "CLIPS": 4, "CROP": 64, "STEPS": 1, "EPOCHS": 1, "BITS": "w8a8"}
    for name, value in values.items():
        monkeypatch.setenv(f"PTQ4VM_{name}", str(value))
    shown = executed("quickstart", tmp_path)
    assert "W8A8, lower is better" in shown and "GAC + OFA" in shown and "image/png" in shown
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_analysis(tiny_run: tuple[Path, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = csv.DictReader(results_csv(load_runs([tiny_run[0]])).splitlines())
    rows = [row, {**row, "seed": "1", "mad": str(float(row["mad"]) + 2)}, {**row, "method": "rtn", "steps": "0"}]
    rows += [{**row, "weight_bits": "8", "activation_bits": "8", "stored_bytes": ""}]
    rows += [{**dict.fromkeys(row, ""), "name": "seed=x", "status": "failed", "error": "seed='x' is no number"}]
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setenv("PTQ4VM_RESULTS", str(tmp_path / "results.csv"))
    shown = executed("analysis", tmp_path)
    assert "4 of 5 runs have finished" in shown and "image/png" in shown
    assert f"| W4A4 | ptq4vm | 2 | {float(row['mad']) + 1:.2f} ± 1.41 |" in shown
    assert "| W8A8 | ptq4vm | 1 |" in shown and "| W4A4 | rtn | 1 |" in shown
    assert "seed=x: failed. seed='x' is no number" in shown
