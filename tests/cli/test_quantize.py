from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from commands import Done, Workplace, difference, files, same
from ptq4vm.metrics import METRIC_NAMES

STAGES = ["fp32", "rtn", "biq", "gac"]
TinyRun = tuple[Path, Done]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_run_folder_holds_what_other_tools_rely_on(tiny_run: TinyRun) -> None:
    folder, _ = tiny_run
    sheets = {"sheets/set__a.png", "sheets/set__b.png"}
    sheets |= {f"sheets/set__{clip}/{still}.jpg" for clip in "ab" for still in ("input", "truth", "fp32", "quantized")}
    wanted = {"model.safetensors", "quantizer.yaml", "metrics.json", "timing.json", "quantize.log"} | sheets
    wanted |= {"run.json", "layers.json", ".lock"}
    logs = {"logs/biq/metrics.csv", "logs/gac/metrics.csv"}
    hydra = {".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"}
    state = {"state/progress.json", "state/start.safetensors", "state/biq.safetensors", "state/gac.safetensors"}
    assert files(folder) == wanted | logs | hydra | state
    assert all(Image.open(folder / sheet).width > 500 for sheet in sheets if sheet.endswith(".png"))


def test_metrics_json(tiny_run: TinyRun) -> None:
    metrics = read(tiny_run[0] / "metrics.json")
    assert set(metrics) == {"mean", "clips", "stages"}
    assert list(metrics["stages"]) == STAGES
    assert list(metrics["mean"]) == list(METRIC_NAMES)
    assert set(metrics["clips"]) == {"set/a", "set/b"}
    for stage in metrics["stages"].values():
        assert set(stage) == {*METRIC_NAMES, "mean", "clips"}
        assert all(stage[name] == stage["mean"][name] for name in METRIC_NAMES)
    assert metrics["mean"] == metrics["stages"]["gac"]["mean"]
    assert metrics["clips"] == metrics["stages"]["gac"]["clips"]
    values = {metrics["stages"][stage]["mad"] for stage in STAGES}
    assert len(values) == 4, "every stage is another network"


def test_timing_json(tiny_run: TinyRun) -> None:
    timing = read(tiny_run[0] / "timing.json")
    assert set(timing) == {"stages", "blocks", "total"}
    assert set(timing["stages"]) == {"rtn", "calibrate", "biq", "gac", *(f"evaluate_{stage}" for stage in STAGES)}
    assert timing["total"] == pytest.approx(sum(timing["stages"].values()))
    assert next(iter(timing["blocks"])) == "backbone.features.0" and list(timing["blocks"])[-1] == "project_mat"
    assert len(timing["blocks"]) == 24
    assert 0 < sum(timing["blocks"].values()) < timing["stages"]["biq"]


def test_quantizer_yaml_is_plain(tiny_run: TinyRun) -> None:
    text = (tiny_run[0] / "quantizer.yaml").read_text()
    choices = yaml.safe_load(text)
    assert "!!" not in text
    assert choices["model"] == {
        "family": "rvm",
        "arguments": {"variant": "mobilenetv3", "refiner": "fast_guided_filter"},
    }
    assert choices["spec"]["weight"]["bits"] == choices["spec"]["activation"]["bits"] == 4
    assert choices["partition"]["edge_layers"] == ["backbone.features.0.0", "project_mat.conv"]
    assert choices["method"]["name"] == "ptq4vm" and choices["seed"] == 0
    assert choices["config"]["preset"]["gac"]["epochs"] == 3


def test_network_is_integer_codes_without_anything_extra(tiny_run: TinyRun) -> None:
    tensors = load_file(tiny_run[0] / "model.safetensors")
    codes = {k: v for k, v in tensors.items() if k.endswith(".weight_quantizer.fixed")}
    assert len(codes) == 78
    assert all(value.dtype == torch.int8 for value in codes.values())
    edges = ("backbone.features.0.0.", "project_mat.conv.")
    inner = {k: v for k, v in codes.items() if not k.startswith(edges)}
    assert len(codes) == len(inner) + 2
    assert all(v.min() >= -8 and v.max() <= 7 for v in inner.values())
    assert max(v.abs().max() for k, v in codes.items() if k not in inner) > 8, "edge layers have 8 bits"
    ends = {key.rpartition(".")[2] for key in tensors if key.startswith(("backbone", "aspp", "decoder"))}
    assert ends == {"fixed", "scale", "bias", "log_scale", "zero_point"}
    assert not any("affine" in key for key in tensors)


@pytest.mark.parametrize(("stage", "rows", "losses"), [("biq", 48, 24), ("gac", 6, 5)])
def test_losses_are_logged(tiny_run: TinyRun, stage: str, rows: int, losses: int) -> None:
    with (tiny_run[0] / "logs" / stage / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    columns = [name for name in table[0] if name.startswith(f"{stage}/")]
    assert len(table) == rows and len(columns) == losses
    assert all(any(row[name] for row in table) for name in columns)


def test_terminal_shows_table_and_no_warnings(tiny_run: TinyRun) -> None:
    folder, done = tiny_run
    assert done.err == ""
    for title in ("FP32", "round to nearest", "BIQ", "GAC + OFA", "MAD / FP32", str(folder)):
        assert title in done.out
    for hint in ("eval mode", "logging interval", "LeafSpec", "num_workers", "GPU available", "Warning", "WARNING"):
        assert hint not in done.out


def test_evaluating_the_folder_gives_the_same_metrics(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    done = workplace.evaluate(tmp_path / "out", f"checkpoint={tiny_run[0]}")
    assert done.status == 0, done.err
    found, wanted = read(tmp_path / "out" / "metrics.json"), read(tiny_run[0] / "metrics.json")
    assert set(found) == {"mean", "clips", "stages"}
    assert same(found["mean"], wanted["mean"])
    assert all(same(found["clips"][clip], wanted["clips"][clip]) for clip in wanted["clips"])
    assert (tmp_path / "out" / "sheets" / "set__a.png").is_file()
    assert "WARNING" not in done.out and done.err == ""


def test_evaluating_fp32_gives_the_first_stage(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    assert workplace.evaluate(tmp_path, "checkpoint=fp32").status == 0
    wanted = read(tiny_run[0] / "metrics.json")["stages"]["fp32"]
    assert same(read(tmp_path / "metrics.json")["mean"], wanted["mean"])


def test_same_command_again_finds_it_finished(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    shutil.copytree(tiny_run[0], tmp_path / "run")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("metrics.json", "model.safetensors")}
    done = workplace.quantize(tmp_path / "run")
    assert done.status == 0
    assert "finished: nothing is left to do" in done.out and "GAC + OFA" in done.out
    assert "evaluating" not in done.out and "block " not in done.out and "Epoch" not in done.out
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    assert read(tmp_path / "run" / "timing.json") == read(tiny_run[0] / "timing.json")
    assert not (tmp_path / "run" / "logs" / "biq-2").exists()


def test_a_lost_network_is_made_again_from_finished_stages(
    tiny_run: TinyRun, workplace: Workplace, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run[0], tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"damaged")
    done = workplace.quantize(tmp_path / "run")
    assert done.status == 0 and "block " not in done.out and "making it again" in done.out
    assert difference(tmp_path / "run", tiny_run[0]) == []


@pytest.mark.parametrize(
    ("argument", "names"),
    [("seed=1", "seed"), ("bits=w4a8", "bits"), ("preset.gac.epochs=4", "preset"), ("method.ofa=false", "method")],
)
def test_other_settings_in_the_same_folder(
    tiny_run: TinyRun, workplace: Workplace, tmp_path: Path, argument: str, names: str
) -> None:
    (tmp_path / "state").mkdir()
    shutil.copy(tiny_run[0] / "state" / "progress.json", tmp_path / "state")
    line = workplace.quantize(tmp_path, argument).line()
    assert str(tmp_path) in line and names in line and "overwrite=true" in line


def test_budgets_do_not_make_another_run(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    shutil.copytree(tiny_run[0], tmp_path / "run")
    done = workplace.quantize(tmp_path / "run", "memory_mib=100", "logger=none", "trainer=cpu")
    assert done.status == 0 and "nothing is left to do" in done.out


def test_overwrite_removes_what_was_there_and_nothing_else(
    tiny_run: TinyRun, workplace: Workplace, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run[0], run)
    (run / "notes.txt").write_text("mine")
    done = workplace.quantize(run, "overwrite=true", "method=rtn", "bits=w8a8")
    assert done.status == 0, done.err
    assert (run / "notes.txt").read_text() == "mine"
    assert list(read(run / "metrics.json")["stages"]) == ["fp32", "rtn"]
    assert not (run / "logs").exists() and not (run / "state" / "biq.safetensors").exists()
    assert yaml.safe_load((run / "quantizer.yaml").read_text())["spec"]["weight"]["bits"] == 8


def test_fp32_is_evaluated_only(workplace: Workplace, tiny_run: TinyRun, tmp_path: Path) -> None:
    done = workplace.quantize(tmp_path, "bits=fp32")
    assert done.status == 0, done.err
    metrics = read(tmp_path / "metrics.json")
    assert list(metrics["stages"]) == ["fp32"]
    assert same(metrics["mean"], read(tiny_run[0] / "metrics.json")["stages"]["fp32"])
    assert not (tmp_path / "model.safetensors").exists()


def test_sweep_writes_a_folder_for_each_value(workplace: Workplace, tmp_path: Path) -> None:
    done = workplace.quantize(tmp_path, "-m", "bits=w8a8,w4a4", "method=rtn")
    assert done.status == 0, done.err
    found = sorted(path.parent for path in tmp_path.rglob("metrics.json"))
    assert len(found) == 2
    for folder, bits in zip(found, (4, 8), strict=True):
        assert folder.name == f"bits=w{bits}a{bits}"
        assert yaml.safe_load((folder / "quantizer.yaml").read_text())["spec"]["activation"]["bits"] == bits
    errors = [read(folder / "metrics.json")["stages"] for folder in found]
    gaps = [abs(stages["rtn"]["mad"] - stages["fp32"]["mad"]) for stages in errors]
    assert gaps[1] < gaps[0], "8 bits are closer to float than 4"


def test_one_failing_job_of_a_sweep_leaves_the_others(workplace: Workplace, tmp_path: Path) -> None:
    done = workplace.quantize(tmp_path, "-m", "seed=x,0", "method=rtn")
    assert "seed='x'" in done.line()
    assert len(list(tmp_path.rglob("metrics.json"))) == 1


def with_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


DAMAGE = {
    "truncated": lambda f: with_file(f, "model.safetensors", (f / "model.safetensors").read_bytes()[:-1000]),
    "no header": lambda f: with_file(f, "model.safetensors", b"\x00" * 100),
    "no tensors": lambda f: (f / "model.safetensors").unlink(),
    "no choices": lambda f: (f / "quantizer.yaml").unlink(),
    "empty choices": lambda f: with_file(f, "quantizer.yaml", b""),
    "broken yaml": lambda f: with_file(f, "quantizer.yaml", b"{a: ["),
    "other bits": lambda f: with_file(
        f, "quantizer.yaml", (f / "quantizer.yaml").read_bytes().replace(b"bits: 4", b"bits: 5")
    ),
    "wrong bits": lambda f: with_file(
        f, "quantizer.yaml", (f / "quantizer.yaml").read_bytes().replace(b"bits: 4", b"bits: 99")
    ),
    "other network": lambda f: with_file(
        f, "quantizer.yaml", (f / "quantizer.yaml").read_bytes().replace(b"mobilenetv3", b"mobilenetv9")
    ),
    "python object": lambda f: with_file(f, "quantizer.yaml", b"!!python/object/apply:os.system ['true']"),
    "later format": lambda f: with_file(
        f, "quantizer.yaml", (f / "quantizer.yaml").read_bytes().replace(b"format: 1", b"format: 2", 1)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("model.safetensors", "quantizer.yaml"):
        shutil.copy(tiny_run[0] / name, folder)
    DAMAGE[damage](folder)
    assert str(folder) in workplace.evaluate(tmp_path / "out", f"checkpoint={folder}").line()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_tensors_of_another_network(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(tiny_run[0] / "quantizer.yaml", folder)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    assert str(folder) in workplace.evaluate(tmp_path / "out", f"checkpoint={folder}").line()


def test_checkpoint_of_another_model_or_bit_width(tiny_run: TinyRun, workplace: Workplace, tmp_path: Path) -> None:
    line = workplace.evaluate(tmp_path, f"checkpoint={tiny_run[0]}", "model=rvm_resnet50").line()
    assert "mobilenetv3" in line and "resnet50" in line and str(tiny_run[0]) in line
    line = workplace.evaluate(tmp_path, f"checkpoint={tiny_run[0]}", "bits=w8a8").line()
    assert "w4a4" in line and "w8a8" in line
    assert "missing" in workplace.evaluate(tmp_path, f"checkpoint={tmp_path / 'nowhere'}").line()


def test_weights_of_another_network(workplace: Workplace, tmp_path: Path) -> None:
    line = workplace.quantize(tmp_path, "model=rvm_resnet50").line()
    assert "mobilenetv3" in line and "resnet50" in line
