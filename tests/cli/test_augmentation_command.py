from __future__ import annotations

import json
from pathlib import Path

from commands import TINY, Workplace
from layouts import draw_layout


def test_quantize_on_augmented_samples(tmp_path: Path, workplace: Workplace) -> None:
    place = Workplace(tmp_path)
    draw_layout("videomatte", place.data)
    arguments = [f"model.weights={workplace.weights}", f"data.root={place.data}", "data=videomatte", *TINY]
    arguments += ["preset.reconstruction.steps=1", "preset.gac.epochs=1", "bits=w8a8", "augmentation=rvm"]
    ahead = place.run("flow", *arguments, f"run_dir={tmp_path / 'flow'}")
    assert ahead.status == 0, ahead.err
    assert "4 segments, 0 were there" in ahead.out, "an entry for each sample"
    entries = sorted(path.name for path in (place.cache / "flow").rglob("*.safetensors"))
    run = f"run_dir={tmp_path / 'run'}"
    done = place.run("quantize", *arguments, run, "baseline=false")
    assert done.status == 0, done.err
    assert sorted(path.name for path in (place.cache / "flow").rglob("*.safetensors")) == entries
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    other = place.run("quantize", *arguments, run, "baseline=false", "augmentation.pause=0.5").line()
    assert "other settings (augmentation" in other
    known = place.run("quantize", *arguments, f"run_dir={tmp_path / 'other'}", "flow=analytic").line()
    assert "flow=analytic" in known and "augmentation=none" in known
