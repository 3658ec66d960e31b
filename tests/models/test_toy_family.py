"""A family of networks that only the tests know goes through everything that RVM goes through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ptq4vm
import toy_family
from commands import SIZE, Workplace, as_found, draw_videomatte, files, same
from ptq4vm import api, settings
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.errors import ConfigError, WeightsError, WeightsUnavailableError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.exporting.form import export_form
from ptq4vm.exporting.verify import open_engine
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Method, Preset
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.models.family import FAMILIES
from ptq4vm.pipeline.run import RunResult
from ptq4vm.quant.quantizers.fixed import FixedCodes
from ptq4vm.quant.spec import QuantSpec

SRC = Path(ptq4vm.__file__).parent
TINY = Preset(
    CalibrationSettings(clips=2, clip_length=3, crop=(64, 64), batch_size=2),
    ReconstructionSettings(steps=2, batch_frames=3),
    GACSettings(epochs=2, burn_in=1, state_weight=0.01, teacher_weight=0.1),
)
PLACEMENTS = ("input", "engine")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("toy")
    draw_videomatte(root / "videomatte")
    toy_family.save_toy_weights(root / "weights.safetensors")
    return Workplace(root)


@pytest.fixture(scope="module")
def model(place: Workplace) -> api.Model:
    return api.build_model("toy", {}, weights=place.weights)


def chosen(placement: str) -> tuple[Method, QuantSpec]:
    method, spec = ptq4vm.load_method("ptq4vm", "w8a8")
    return method, replace(spec, placement=placement)


@pytest.fixture(scope="module", params=PLACEMENTS)
def run(request: pytest.FixtureRequest, place: Workplace, model: api.Model) -> tuple[Path, RunResult]:
    """A finished run of every stage, with its folder."""
    folder = place.root / request.param
    method, spec = chosen(request.param)
    data = ptq4vm.load_data("videomatte", root=place.data, pairs_per_clip=1)
    with as_found(place.cache):
        result = ptq4vm.quantize(model, data, method=method, bits=spec, preset=TINY, run_dir=folder)
    return folder, result


def evaluate(network: api.Model | torch.nn.Module, place: Workplace) -> EvaluationResult:
    data = ptq4vm.load_data("folder", root=place.data / "eval")
    with as_found(place.cache):
        return ptq4vm.evaluate(network, data)  # type: ignore[arg-type]


def test_nothing_in_the_package_knows_the_toy() -> None:
    named = [path for path in SRC.rglob("*.py") if "toy" in path.read_text(encoding="utf-8").lower()]
    assert named == []
    assert not (settings.config_folder() / "model" / "toy.yaml").exists()
    assert FAMILIES["toy"] is toy_family.ToyFamily


def test_a_network_is_built_and_cut_up_as_its_family_says(model: api.Model) -> None:
    assert isinstance(model.network, toy_family.Toy) and not model.network.training and model.network.num_states == 0
    assert model.architecture == {"family": "toy", "arguments": {}}
    assert model.partition.blocks == ("stem", "body", "mix", "project")
    assert model.partition.branches == {"mix.0": (8, 3)}
    frames, clip = torch.rand(2, 3, *SIZE), torch.rand(1, 2, 3, *SIZE)
    for src in (frames, clip):
        output = model.network.matte(src, (), 0.5)
        assert output.foreground.shape == src.shape and output.states == ()
        assert output.alpha.shape == (*src.shape[:-3], 1, *SIZE)


def test_weights_are_checked(place: Workplace, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"weights\.safetensors does not hold the toy of width 4: \d+ entries differ"
    ):
        api.build_model("toy", {"width": 4}, weights=place.weights)
    with (
        as_found(tmp_path),
        pytest.raises(WeightsUnavailableError, match=r"no weights for the toy of width 8: \(1\) your own"),
    ):
        api.build_model("toy", {})
    with pytest.raises(ConfigError, match=r"model\.arguments=\{'wdith': 4\} do not fit toy: .*wdith"):
        api.build_network("toy", {"wdith": 4}, pretrained=False)
    with pytest.raises(ConfigError, match=r"one of .*rvm.*toy"):
        api.build_network("unet", {})


def test_every_stage_ran(run: tuple[Path, RunResult]) -> None:
    folder, result = run
    assert list(result.stages) == ["fp32", "rtn", "biq", "gac"]
    assert {"model.safetensors", "quantizer.yaml", "metrics.json", "run.json"} <= files(folder)
    assert result.cost is not None and result.cost.gmacs > 0
    assert any(isinstance(module, FixedCodes) for module in result.network.modules())


def test_saved_and_loaded_and_evaluated(run: tuple[Path, RunResult], model: api.Model, place: Workplace) -> None:
    folder, result = run
    network = ptq4vm.load_checkpoint(folder)
    assert isinstance(network, toy_family.Toy)
    frames = torch.rand(1, 2, 3, *SIZE)
    assert torch.equal(network.matte(frames).alpha, result.network.matte(frames).alpha)
    assert evaluate(network, place).mean == result.stages["gac"].mean
    assert evaluate(model, place).mean == result.stages["fp32"].mean != result.stages["gac"].mean


@pytest.mark.parametrize("more", [[], ["dynamic=true"], ["size=192x128", "downsample_ratio=0.5"]], ids=" ".join)
@pytest.mark.parametrize(("target", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_exported_and_verified(
    run: tuple[Path, RunResult], place: Workplace, target: str, suffix: str, more: list[str], tmp_path: Path
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(target, target))
    file = tmp_path / f"a{suffix}"
    size = [] if "size=192x128" in more else ["size=96x64"]
    done = place.run("export", f"checkpoint={run[0]}", f"target={target}", f"out={file}", *size, *more)
    assert done.status == 0, done.err
    clip = place.data / "eval" / "set" / "a"
    done = place.run("export", "verify", f"checkpoint={run[0]}", f"file={file}", f"clip={clip}", "threads=1")
    assert done.status == 0, done.err
    assert done.out.startswith("ptq4vm export verify: passed: 6 frames") and done.err == ""
    engine = open_engine(file, threads=1)
    assert engine.metadata["model"] == "toy_8"
    assert engine.metadata["licence"] == "weights drawn at random, in the public domain; made with ptq4vm, Apache-2.0"
    if not more:  # every frame is matted alone: what came before leaves no trace
        frames = [FolderClip.from_folder(clip).read(index, index + 1).frames[0] for index in (0, 3)]
        first, other = (frame.permute(1, 2, 0).contiguous().numpy() for frame in frames)
        alone = engine.matte(first).alpha
        engine.matte(other)
        np.testing.assert_array_equal(engine.matte(first).alpha, alone)


def test_a_subclass_is_exported_in_the_form_of_its_class(run: tuple[Path, RunResult]) -> None:
    network = ptq4vm.load_checkpoint(run[0])
    form = export_form(network, "onnx")
    assert type(network.lift) is toy_family.SoftLift and type(form.lift) is toy_family.SeparateLift
    frames = torch.rand(1, 3, *SIZE)
    torch.testing.assert_close(form.matte(frames).alpha, network.matte(frames).alpha, rtol=0, atol=1e-3)


def test_reported(run: tuple[Path, RunResult], place: Workplace, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    done = place.run("report", str(run[0]), "--out", str(tmp_path / "page"))
    assert done.status == 0, done.err
    assert (tmp_path / "page" / "index.html").stat().st_size > 10_000


def test_one_file_makes_it_a_choice_of_the_command_line(place: Workplace, tmp_path: Path) -> None:
    choice = tmp_path / "conf" / "model" / "toy.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text(f"family: toy\narguments:\n  width: 8\nweights: {place.weights}\n")
    model = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "model=toy"]
    values = [value for value in place.tiny(tmp_path / "run") if not value.startswith("model.")]
    done = place.run("quantize", *model, *values, "bits=w8a8", "method=rtn")
    assert done.status == 0, done.err
    evaluate = [*model, "data=folder", f"data.root={place.data / 'eval'}", f"run_dir={tmp_path / 'measured'}"]
    done = place.run("evaluate", *evaluate, f"checkpoint={tmp_path / 'run'}")
    assert done.status == 0, done.err
    measured, stages = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("measured", "run"))
    assert same(measured["stages"]["quantized"]["mean"], stages["stages"]["rtn"]["mean"])
    done = place.run("quantize", *model, *values, "model.arguments.width=4", "overwrite=true")
    assert "weights.safetensors does not hold the toy of width 4" in done.line()


@pytest.mark.parametrize("kind", ["checkpoint", "onnx"])
def test_matted(run: tuple[Path, RunResult], place: Workplace, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    source = run[0]
    if kind == "onnx":
        source = tmp_path / "a.onnx"
        assert place.run("export", f"checkpoint={run[0]}", "target=onnx", f"out={source}", "size=96x64").status == 0
    clip = place.data / "eval" / "set" / "a" / "com"
    done = place.run("matte", f"input={clip}", f"out={tmp_path / 'mattes'}", f"checkpoint={source}", "output=alpha")
    assert done.status == 0, done.err
    assert len(list((tmp_path / "mattes").glob("*.png"))) == 6
