"""Which engine opens which file, and that nothing is imported for it that it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.engines.registry import ENGINES, engine_class, engines_for, open_engine
from ptq4vm.errors import ConfigError, ExportError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

HEAVY = ("torch", "pytorch_lightning", "onnx", "hydra", "ptq4vm.api")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph whose foreground is the frame, and whose alpha is its mean over the colours."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Identity", ["src"], ["fgr"]),
        helper.make_node("ReduceMean", ["src", "axes"], ["pha"], keepdims=1),
    ]
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1])
    source, *ends = (
        helper.make_tensor_value_info(name, kind, [1, count, 4, 6])
        for name, count in (("src", 3), ("fgr", 3), ("pha", 1))
    )
    graph = helper.make_graph(nodes, "mean", [source], ends, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path_factory.mktemp("mean") / "mean.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_usual_engine_comes_first() -> None:
    assert engines_for(Path("a.onnx")) == ("onnx", "openvino") == engines_for(Path("b/A.ONNX"))
    assert engines_for(Path("a.xml")) == ("openvino",)
    assert engines_for(Path("a.pt")) == () == engines_for(Path("a"))
    assert engine_class(Path("a.onnx")) is OnnxEngine
    assert engine_class(Path("a.onnx"), "openvino") is engine_class(Path("a.xml")) is OpenVinoEngine


def test_all_suffixes_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        open_engine(Path("a.pt"))
    named = str(caught.value).partition("neither ")[2].partition(":")[0].split(" nor ")
    assert named == list(dict.fromkeys(kind.suffixes[0] for kind in ENGINES.values()))
    assert {".bits", ".onnx", ".tflite", ".xml"} <= set(named)


def test_files_that_make_up_an_export() -> None:
    assert OnnxEngine.files(Path("a.onnx")) == (Path("a.onnx"),) == OpenVinoEngine.files(Path("a.onnx"))
    assert OpenVinoEngine.files(Path("a.xml")) == (Path("a.xml"), Path("a.bin"))


@pytest.mark.parametrize(
    ("name", "engine", "said"),
    (
        ("a.pt", "auto", r"a\.pt is neither \.bits nor "),
        ("a.onnx", "tflite", "engine=tflite is unknown: use one of bits, litert, onnx, openvino"),
        ("a.xml", "onnx", r"engine=onnx does not open a\.xml: it opens \.onnx"),
    ),
)
def test_what_no_engine_opens(name: str, engine: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        open_engine(Path(name), engine=engine)
    assert "\n" not in str(caught.value)


def test_options_reach_the_engine(file: Path) -> None:
    with pytest.raises(ConfigError, match="threads=0"):
        open_engine(file, 0)
    with pytest.raises(ConfigError, match="precision='f16' is unknown: use one of f32, bf16"):
        open_engine(file, 1, "openvino", precision="f16")
    with pytest.raises(ExportError, match="missing"):
        open_engine(file.with_name("gone.onnx"))


PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from ptq4vm.engines import benchmark, memory
from ptq4vm.engines.registry import open_engine
engine = open_engine(Path(sys.argv[1]), 1, sys.argv[2])
matte = engine.matte(np.full((4, 6, 3), 51, np.uint8))
assert abs(matte.alpha - 0.2).max() < 1e-6 and matte.foreground.shape == (4, 6, 3)
sys.stdout.write(json.dumps(sorted(set(sys.modules) & set(json.loads(sys.argv[3])))))
"""


@pytest.mark.parametrize(("engine", "other"), [("onnx", "openvino"), ("openvino", "onnxruntime")])
def test_a_file_needs_its_own_engine_alone(file: Path, engine: str, other: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(file), engine, json.dumps([*HEAVY, other])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
