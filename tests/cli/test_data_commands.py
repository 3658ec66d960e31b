"""`ptq4vm data check`, `ptq4vm compose` and `ptq4vm flow`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import TINY, Workplace
from layouts import LAYOUTS, draw_backgrounds, draw_layout


def test_check_prints_and_writes(workplace: Workplace, tmp_path: Path) -> None:
    root = draw_layout("folder", tmp_path / "root")
    arguments = ["data=folder", f"data.root={root}", f"run_dir={tmp_path / 'run'}"]
    done = workplace.run("data", "check", *arguments)
    assert done.status == 0, done.err
    assert all(word in done.out for word in ("clips", "12", "96x64", "0000 to 0005", "contact.png"))
    assert (tmp_path / "run" / "contact.png").stat().st_size > 1000
    assert json.loads((tmp_path / "run" / "check.json").read_text())["faults"] == []
    (root / "set é" / "clip 1" / "pha" / "0002.png").write_bytes(b"x")
    done = workplace.run("data", "check", *arguments)
    assert "0002.png cannot be read" in done.line() and "(1 of 1 faults)" in done.err
    assert "fault: image" in done.out
    line = workplace.run("data", "check", "data=backgrounds_video", f"data.root={root}", arguments[-1]).line()
    assert "holds no backgrounds" in line
    assert "data.root has no value" in workplace.run("data", "check", "data=d646", arguments[-1]).line()


@pytest.mark.parametrize("name", [n for n in LAYOUTS if n not in ("folder", "footage")])
def test_every_layout_is_composed_and_the_set_evaluated(workplace: Workplace, tmp_path: Path, name: str) -> None:
    root, out = draw_layout(name, tmp_path / "root"), tmp_path / "out"
    backgrounds = draw_backgrounds(tmp_path / "bg")
    arguments = [f"data={name}", f"data.root={root}", f"out={out}", "size=[96,64]", "frames=3", "clips=2"]
    own = workplace.run("compose", *arguments[:2], f"out={tmp_path / 'own'}", *arguments[3:])
    assert own.status == 0 and "2 clips, 6 frames, 2 written now" in own.out, own.err
    both = [f"static={backgrounds / 'image'}", f"motion={backgrounds / 'video'}"]
    done = workplace.run("compose", *arguments, *both)
    assert done.status == 0 and "4 clips, 12 frames, 4 written now" in done.out, done.err
    again = workplace.run("compose", *arguments, *both)
    assert "0 written now" in again.out
    manifest = json.loads((out / "manifest.json").read_text())
    assert {clip.split("/")[0] for clip in manifest["clips"]} == {f"{name}_static", f"{name}_motion"}
    assert manifest["split"] == "test" and manifest["data"]["root"] == str(root)
    if name == "aim":
        done = workplace.evaluate(tmp_path / "run", f"data.root={out}")
        assert done.status == 0 and "on 4 clips" in done.out and "Fgr MSE" in done.out
        done = workplace.run("evaluate", f"pred={out}", f"true={out}", f"run_dir={tmp_path / 'same'}")
        assert json.loads((tmp_path / "same" / "metrics.json").read_text())["mean"]["mad"] == 0


WRONG = {
    "out": ("out has no value",),
    "data=folder": ("data=folder has no foregrounds", "videomatte240k"),
    "split=all": ("split=all", "train, valid or test"),
    "split=train": ("only clips that are held back",),
    "format=gif": ("format='gif'", "png or jpg"),
    "clips=0": ("clips=0", "at least 1"),
    "size=[5]": ("size", "whole number"),
    "nope=1": ("nope is unknown", "static", "motion"),
    "static=/nowhere": ("/nowhere", "holds no backgrounds"),
}


@pytest.mark.parametrize("argument", WRONG)
def test_what_compose_refuses_is_one_line(workplace: Workplace, tmp_path: Path, argument: str) -> None:
    root = workplace.data
    base = {"data": "videomatte240k", "data.root": str(root), "out": str(tmp_path / "out"), "split": "train"}
    base |= {"data.held_back": "[a,b]"} if argument == "split=train" else {}
    key, _, value = argument.partition("=")
    base = {**base, key: value} if value else {k: v for k, v in base.items() if k != key}
    line = workplace.run("compose", *(f"{k}={v}" for k, v in base.items())).line()
    assert all(word in line for word in WRONG[argument]), line


def test_flow_fills_the_cache_that_quantize_reads(tmp_path: Path, workplace: Workplace) -> None:
    place = Workplace(tmp_path)
    draw_layout("videomatte", place.data)
    arguments = [f"model.weights={workplace.weights}", f"data.root={place.data}", "data=videomatte", *TINY]
    run = f"run_dir={tmp_path / 'run'}"
    first = place.run("flow", *arguments, run)
    assert first.status == 0, first.err
    assert "dis-medium: 3 segments, 0 were there (0%), 3 computed" in first.out and "3 entries" in first.out
    again = place.run("flow", *arguments, run, "whole_clips=true")
    assert "3 segments, 3 were there (100%), 0 computed" in again.out
    before = {path: path.stat().st_mtime_ns for path in (place.cache / "flow").glob("*.safetensors")}
    done = place.run("quantize", *arguments, f"run_dir={tmp_path / 'q'}", "preset.reconstruction.steps=1", "bits=w8a8")
    assert done.status == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in (place.cache / "flow").glob("*.safetensors")} == before
    small = place.run("flow", *arguments, run, "flow_cache_mib=0.05", "flow.preset=fast")
    assert "3 computed" in small.out and "1 entries" in small.out
    assert "known by the clips" in place.run("flow", *arguments, run, "flow=analytic").line()
    assert "above 0 MiB" in place.run("flow", *arguments, run, "flow_cache_mib=0").line()
