"""Files, names and folders that a command cannot work with: one line that names them and says what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from commands import Done, Workplace
from ptq4vm.errors import one_line

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SIZE = "96x64"


@pytest.fixture(scope="module")
def exported(workplace: Workplace, tiny_run: tuple[Path, Done], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    done = workplace.run("export", f"checkpoint={tiny_run[0]}", f"out={path}", "target=onnx", f"size={SIZE}")
    assert done.status == 0, done.err
    return path


def told(path: Path, target: Path, **values: str) -> Path:
    """A copy of an exported file whose metadata says something else."""
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = values.get(entry.key, entry.value)
    onnx.save(model, target)
    return target


def of_shape(target: Path, inputs: list[int] | None = None, outputs: list[int] | None = None) -> Path:
    """A graph with our names that gives constants, of the given sizes."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"src": [1, 3, 64, 96], **{f"r{n}i": [1, 1, 1, 1] for n in range(1, 5)}}
    given = {"fgr": [1, 3, 64, 96], "pha": [1, 1, 64, 96], **{f"r{n}o": [1, 1, 1, 1] for n in range(1, 5)}}
    constants = [
        onnx.numpy_helper.from_array(np.full(outputs or shape, 0.5, np.float32), f"c{name}")
        for name, shape in given.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"c{name}"], [name]) for name in given],
        "graph",
        [
            helper.make_tensor_value_info(name, kind, shape if inputs is None else inputs)
            for name, shape in shapes.items()
        ],
        [helper.make_tensor_value_info(n, kind, s if outputs is None else outputs) for n, s in given.items()],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), target)
    return target


def verify(workplace: Workplace, run_dir: Path, file: Path) -> Done:
    return workplace.run("export", "verify", f"checkpoint={run_dir}", f"file={file}", "frames=1", "clips=1")


def matte(workplace: Workplace, file: Path, out: Path) -> Done:
    clip = workplace.data / "eval" / "set" / "a" / "com"
    return workplace.run("matte", f"input={clip}", f"checkpoint={file}", f"out={out}")


@pytest.mark.parametrize("values", [{"model": "rvm_resnet50"}, {"bits": "w8a8"}, {"bits": "fp32"}], ids=str)
def test_a_file_of_another_network_is_refused_by_name(
    workplace: Workplace, tiny_run: tuple[Path, Done], exported: Path, tmp_path: Path, values: dict[str, str]
) -> None:
    line = verify(workplace, tiny_run[0], told(exported, tmp_path / "other.onnx", **values)).line()
    assert "other.onnx is of" in line and next(iter(values.values())) in line and "w4a4" in line


@pytest.mark.parametrize("ratio", ["nan", "inf", "0", "-1", "1e9", "x", ""])
def test_a_file_with_an_impossible_downsample_ratio_is_refused(
    workplace: Workplace, tiny_run: tuple[Path, Done], exported: Path, tmp_path: Path, ratio: str
) -> None:
    file = told(exported, tmp_path / "ratio.onnx", downsample_ratio=ratio)
    for done in (verify(workplace, tiny_run[0], file), matte(workplace, file, tmp_path / "out")):
        assert "ratio.onnx says downsample_ratio" in done.line()


SHAPES: list[tuple[list[int] | None, list[int] | None]] = [
    *(([1] * rank, None) for rank in (0, 1, 2, 3, 5)),
    *((None, [1] * rank) for rank in (1, 2, 3, 5)),
    ([1, 3, 2**30, 2**30], None),
    (None, [1, 1, 32, 48]),
]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES, ids=str)
def test_graphs_of_other_shapes_are_refused(
    workplace: Workplace,
    tiny_run: tuple[Path, Done],
    tmp_path: Path,
    inputs: list[int] | None,
    outputs: list[int] | None,
) -> None:
    file = of_shape(tmp_path / "shape.onnx", inputs, outputs)
    for done in (verify(workplace, tiny_run[0], file), matte(workplace, file, tmp_path / "out")):
        assert done.status == 1, done  # a warning may come first: such a file does not say where it is from
        assert "shape.onnx" in done.err.splitlines()[-1] and "Traceback" not in done.err


LONG = "n" * 300
NAMES: dict[str, Callable[[Workplace, Path, Path], list[str]]] = {
    "export": lambda w, run, at: ["export", f"checkpoint={run}", f"out={at}.onnx", "target=onnx", f"size={SIZE}"],
    "export verify": lambda w, run, at: ["export", "verify", f"checkpoint={run}", f"file={at}.onnx"],
    "matte": lambda w, run, at: ["matte", f"input={w.data}/eval/set/a/com", f"checkpoint={run}", f"out={at}.mp4"],
    "matte from": lambda w, run, at: ["matte", f"input={at}.mp4", f"checkpoint={run}", f"out={at.parent}/x.mp4"],
    "quantize": lambda w, run, at: ["quantize", *w.tiny(at)],
    "evaluate": lambda w, run, at: ["evaluate", f"checkpoint={run}", "data=folder", f"data.root={at}"],
    "data check": lambda w, run, at: ["data", "check", "data=folder", f"data.root={at}"],
    "report": lambda w, run, at: ["report", str(run), "--out", str(at)],
    "benchmark": lambda w, run, at: ["benchmark", f"files={at}.onnx"],
}


@pytest.mark.parametrize("command", NAMES)
def test_names_that_are_too_long_are_refused_by_name(
    workplace: Workplace, tiny_run: tuple[Path, Done], tmp_path: Path, command: str
) -> None:
    (name, *arguments) = NAMES[command](workplace, tiny_run[0], tmp_path / LONG)
    if name == "evaluate":
        arguments.append(f"run_dir={tmp_path / 'out'}")
    line = workplace.run(name, *arguments).line()
    assert "too long" in line and ("shorter" in line or "choose" in line) and "Errno" not in line and len(line) < 300


@pytest.mark.parametrize("below", ["", "x", "x/y"])
@pytest.mark.parametrize("command", ["quantize", "evaluate"])
def test_a_run_folder_that_is_a_file_is_refused(workplace: Workplace, tmp_path: Path, command: str, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    run = workplace.quantize if command == "quantize" else workplace.evaluate
    line = run(tmp_path / "taken" / below).line()
    assert "taken" in line and "choose another" in line and "Errno" not in line
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("error", [13, 30, 28], ids=["not allowed", "read-only", "full"])
def test_errors_of_the_system_say_what_to_do(error: int) -> None:
    line = one_line(OSError(error, "Reason", "/a/run"))
    assert line.startswith("/a/run: reason; ") and ("choose another place" in line or "free some space" in line)


@pytest.mark.parametrize("target", ["x", "os.system", "ptq4vm.nothing", "1", "null", "[]", "ptq4vm.data.base", ".."])
def test_a_data_set_that_is_no_class_is_refused_by_name(workplace: Workplace, tmp_path: Path, target: str) -> None:
    done = workplace.evaluate(tmp_path / "out", f"data._target_={target}")
    assert "data._target_=" in done.line() and "choose data= by its name" in done.line()


@pytest.mark.parametrize("launcher", ["slurm", "submitit_slurm"])
@pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is here")
def test_slurm_without_srun_is_refused(workplace: Workplace, tmp_path: Path, launcher: str) -> None:
    line = workplace.quantize(tmp_path / "run", "-m", f"hydra/launcher={launcher}", "seed=0,1").line()
    assert f"hydra/launcher={launcher}" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["{a: 1}", "{}", "[1,2]", "choice(a,[1])"])
@pytest.mark.parametrize("group", ["model", "bits", "data", "method", "preset"])
def test_what_is_no_name_of_a_choice_is_refused(workplace: Workplace, tmp_path: Path, group: str, value: str) -> None:
    done = workplace.quantize(tmp_path / "run", f"{group}={value}")
    assert f"{group}=" in done.line() and "is unknown: use" in done.line()


@pytest.mark.parametrize("value", ["\u00e9", "a\nb", "a,,b"])
def test_a_choice_that_cannot_be_read_is_refused(workplace: Workplace, tmp_path: Path, value: str) -> None:
    assert "cannot read" in workplace.quantize(tmp_path / "run", f"method={value}").line()


@pytest.mark.parametrize(
    "value", ["seed=[]", "seed={a: 1}", "bits.weight=[1]", "seed=inf", "seed=[nan]", "bits.weight=-inf"]
)
def test_what_is_no_number_in_the_place_of_one_is_refused(workplace: Workplace, tmp_path: Path, value: str) -> None:
    assert "has the wrong type: give a whole number" in workplace.quantize(tmp_path / "run", value).line()
