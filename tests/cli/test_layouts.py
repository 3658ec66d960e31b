"""Every data set's layout through quantize and evaluate, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands import TINY, Workplace, as_found, draw_clip
from layouts import LAYOUTS, SHORT, draw_backgrounds, draw_layout
from ptq4vm.api.clips import recorded_clips

REST = tuple(o for o in TINY if not o.startswith("data."))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_calibrated_and_evaluated_on(workplace: Workplace, tmp_path: Path, name: str) -> None:
    root = draw_layout(name, tmp_path / "ein Ordner é")
    data = [f"data={name}", f'data.root="{root}"', *SHORT.get(name, ()), f"model.weights={workplace.weights}"]
    run = tmp_path / "run"
    done = workplace.run("quantize", *data, "method=rtn", "bits=w8a8", *REST, "baseline=false", f"run_dir={run}")
    assert done.status == 0, done.out + done.err
    quantized = json.loads((run / "metrics.json").read_text())
    assert quantized["clips"]
    with as_found(workplace.cache):  # as `export verify` finds them again
        found = recorded_clips(str(run), str(workplace.weights))
        assert [clip.name for clip in found] == list(quantized["clips"])
        assert found[0].read(0, 1).alpha.any()
    if name == "footage":
        assert "own alpha" in done.out, "the table says what stands for the truth"
        assert quantized["stages"]["fp32"]["mad"] < 1.1, "FP32 against itself, but for rounding"
    if name in ("footage", "d646"):
        done = workplace.run("evaluate", *data, f"checkpoint={run}", f"run_dir={tmp_path / 'eval'}")
        assert done.status == 0, done.out + done.err
        again = json.loads((tmp_path / "eval" / "metrics.json").read_text())
        assert again["mean"]["mad"] == pytest.approx(quantized["mean"]["mad"], rel=1e-4)
        assert ("own alpha" in " ".join(done.out.split())) == (name == "footage")


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_kind_of_backgrounds_is_calibrated_over(workplace: Workplace, tmp_path: Path, kind: str) -> None:
    backgrounds = draw_backgrounds(tmp_path / "hintergründe") / kind
    data = ["data=videomatte240k", f"data.root={draw_layout('videomatte240k', tmp_path / 'root')}"]
    data += [f'data.backgrounds="{backgrounds}"', f"model.weights={workplace.weights}"]
    run = tmp_path / "run"
    done = workplace.run("quantize", *data, "method=rtn", "bits=w8a8", *REST, "baseline=false", f"run_dir={run}")
    assert done.status == 0, done.out + done.err
    (clip,) = json.loads((run / "metrics.json").read_text())["clips"]
    assert clip.split("+")[1] in {"video": ("a street", "café"), "image": ("bild 0", "bild 1")}[kind]


def test_unlabelled_pictures_are_calibrated_on_besides(workplace: Workplace, tmp_path: Path) -> None:
    pictures = tmp_path / "bilder"
    draw_clip({"com": pictures}, 3, frames=2)
    data = ["data=videomatte", f"data.root={draw_layout('videomatte', tmp_path / 'root')}", "data.pairs_per_clip=1"]
    rest = [f"model.weights={workplace.weights}", "method=rtn", "bits=w8a8", *REST, "preset.calibration.clips=8"]
    scales = []
    for name, value in (("with", f'data.unlabelled="{pictures}"'), ("without", "data.unlabelled=null")):
        run = tmp_path / name
        done = workplace.run("quantize", *data, *rest, value, "baseline=false", f"run_dir={run}")
        assert done.status == 0, done.out + done.err
        assert "own alpha" not in done.out, "what is measured has true alphas"
        scales.append(load_file(run / "model.safetensors"))
        assert len(recorded_clips(str(run), str(workplace.weights))) == 1
    assert any(not torch.equal(a, b) for a, b in zip(scales[0].values(), scales[1].values(), strict=True))
    done = workplace.run("quantize", *data, *rest, "data.unlabelled=[1]", f"run_dir={tmp_path / 'no'}")
    assert "data.unlabelled=[1]" in done.line()
