from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ptq4vm
from commands import SIZE, Done, Workplace, as_found, difference, draw_folder_clip, files
from deploy_media import decode, encode, picture
from ptq4vm import api
from ptq4vm.errors import CheckpointError, ConfigError, DataError
from ptq4vm.io import sha256, write_text
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Preset
from ptq4vm.methods.schedule import ReconstructionSettings

ROOT = Path(__file__).resolve().parents[1]
TINY = Preset(
    CalibrationSettings(clips=2, clip_length=3, crop=(64, 64), batch_size=2),
    ReconstructionSettings(steps=1, batch_frames=3),
    GACSettings(epochs=1),
)


def snippets(path: Path) -> list[str]:
    """Blocks of Python in a Markdown file."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_importing_the_package_is_light() -> None:
    program = "import ptq4vm, sys; ptq4vm.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert all(getattr(ptq4vm, name) is not None for name in ptq4vm.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ptq4vm.nonsense


def test_documented_calls(workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, deployed, second = snippets(ROOT / "docs" / "library.md")
    draw_folder_clip(tmp_path / "clips" / "train" / "a", 0)
    draw_folder_clip(tmp_path / "clips" / "eval" / "b", 1)
    cached = tmp_path / "cache" / "weights" / "rvm_mobilenetv3.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(workplace.weights.read_bytes())
    write_text(f"{cached}.sha256", f"{sha256(cached)}  {cached.name}\n")
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "talk.mp4", count=3, size=SIZE)
    # the only liberties taken with the text: schedules of seconds, a small file, and streams to matte
    assert 'preset="quick"' in first and "size=(288, 512)" in deployed
    names: dict[str, Any] = {"tiny": TINY, "stream": [torch.rand(1, 2, 3, *SIZE)] * 2}
    names["frames"] = [picture(index, SIZE) for index in range(2)]
    with as_found(tmp_path / "cache"):
        exec(first.replace('preset="quick"', "preset=tiny"), names)  # noqa: S102
        exec(deployed.replace("(288, 512)", "SIZE"), {"SIZE": SIZE, **names})  # noqa: S102
        exec(second, names)  # noqa: S102
    result = names["result"]
    assert list(result.stages) == ["fp32", "rtn", "biq", "gac"]
    assert {"model.safetensors", "quantizer.yaml", "metrics.json", "timing.json", "sheets/b.png"} <= files(
        tmp_path / "runs" / "mine"
    )
    with as_found(tmp_path / "cache"):
        measured = ptq4vm.evaluate(result.network, names["data"])
        again = ptq4vm.evaluate(names["network"], names["data"])
        floating = ptq4vm.evaluate(names["model"], names["data"])
    assert measured.mean == again.mean == result.stages["gac"].mean
    assert floating.mean == result.stages["fp32"].mean != measured.mean
    assert len(decode(tmp_path / "talk-green.mp4")[0]) == 3
    assert names["alpha"].shape == (1, 2, 1, *SIZE) and len(names["states"]) == 4


def test_readme_shows_the_documented_calls() -> None:
    shown = snippets(ROOT / "README.md")
    if not shown:
        pytest.skip("the README has no Python yet")
    assert shown[0] == snippets(ROOT / "docs" / "library.md")[0]


def test_library_and_command_line_are_one(tiny_run: tuple[Path, Done], workplace: Workplace, tmp_path: Path) -> None:
    preset = ptq4vm.load_preset("quick")
    preset = Preset(
        replace(preset.calibration, clips=4, clip_length=3, crop=(64, 64), batch_size=2),
        replace(preset.reconstruction, steps=2, batch_frames=6),
        replace(preset.gac, epochs=3, burn_in=1, state_weight=0.01),
    )
    with as_found(workplace.cache):
        result = ptq4vm.quantize(
            ptq4vm.load_model("rvm_mobilenetv3", workplace.weights),
            ptq4vm.load_data("videomatte", root=workplace.data, pairs_per_clip=1),
            preset=preset,
            run_dir=tmp_path / "run",
        )
        restored = ptq4vm.load_checkpoint(tiny_run[0])
    assert difference(tmp_path / "run", tiny_run[0]) == []
    frames = torch.rand(1, 2, 3, 64, 96)
    assert torch.equal(result.network.matte(frames).alpha, restored.matte(frames).alpha)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ptq4vm.load_model("rvm_vgg"), "model=rvm_vgg is unknown: use one of "),
        (lambda: ptq4vm.load_data("nope"), "data=nope is unknown: use one of aim"),
        (lambda: ptq4vm.load_data("folder"), "data.root has no value"),
        (lambda: ptq4vm.load_data("folder", root=3), "data.root=3 has the wrong type"),
        (lambda: ptq4vm.load_data("folder", rooot="x"), "data.rooot is unknown: use one of root"),
        (lambda: ptq4vm.load_flow("dis", preset="slow"), "slow"),
        (lambda: ptq4vm.load_flow("analytic", preset="slow"), "flow.preset is unknown: use nothing"),
        (lambda: ptq4vm.load_preset("fast"), "preset=fast is unknown: use one of paper, quick"),
        (lambda: ptq4vm.load_method("ptq4vm", "w1a1"), "bits=w1a1 is unknown: use fp32, or wXaY"),
        (lambda: api.build_network("unet", {}), "model.family=unet is unknown: use one of "),
        (lambda: api.build_network("rvm", {"varient": "x"}, pretrained=False), "varient"),
    ],
)
def test_wrong_names(call: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_method_and_bits_go_together(workplace: Workplace, tmp_path: Path) -> None:
    model = ptq4vm.load_model(weights=workplace.weights)
    data = ptq4vm.load_data("folder", root=workplace.data / "eval")
    method, _ = ptq4vm.load_method("ptq4vm")
    with pytest.raises(ConfigError, match="QuantSpec"):
        ptq4vm.quantize(model, data, method=method, bits="w4a4", run_dir=tmp_path)
    with pytest.raises(ConfigError, match="flow"):
        ptq4vm.quantize(model, data, flow=None, run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        ptq4vm.load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(DataError, match="does not exist"):
        ptq4vm.evaluate(model, ptq4vm.load_data("folder", root=tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_quantizing_leaves_the_float_network_alone(workplace: Workplace, tmp_path: Path) -> None:
    model = ptq4vm.load_model(weights=workplace.weights)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    with as_found(workplace.cache):
        ptq4vm.quantize(
            model,
            ptq4vm.load_data("videomatte", root=workplace.data, pairs_per_clip=1),
            bits="w8a8",
            method="rtn",
            preset=TINY,
            run_dir=tmp_path,
        )
    after = model.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
