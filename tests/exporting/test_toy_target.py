"""An export target and its engine that ptq4vm does not bring. The two classes are all that adding them takes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import SIZE, Workplace, draw_folder_clip
from deploy_runs import spec, write_run
from ptq4vm.api import load_checkpoint
from ptq4vm.engines.benchmark import file_contenders
from ptq4vm.engines.registry import ENGINES, engines_for, open_engine
from ptq4vm.engines.step import Port, StepEngine, Tensors
from ptq4vm.errors import ConfigError, ExportError
from ptq4vm.exporting.graph.editor import Editor, Pass
from ptq4vm.exporting.metadata import describe
from ptq4vm.exporting.target import TARGETS, Target
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait, verify
from ptq4vm.io import atomic_path
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.system.cpu import Cpu

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

GRAPH, SAID = "graph.onnx", "metadata.json"


@ENGINES.register("toy")
class ToyEngine(StepEngine):
    """Runs the graph in a zip archive."""

    title = "Toy"
    package = "onnxruntime"
    suffixes = (".toy",)

    def __init__(self, file: Path, threads: int | None = None) -> None:
        try:
            with zipfile.ZipFile(file) as archive:
                content, said = archive.read(GRAPH), json.loads(archive.read(SAID))
        except (OSError, zipfile.BadZipFile) as error:
            raise ExportError(f"{file} is no toy ({error}): export again") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs = [Port(i.name, tuple(i.shape)) for i in self._session.get_inputs()]
        self._names = [output.name for output in self._session.get_outputs()]
        super().__init__(file, inputs, self._names, said)

    @classmethod
    def exact(cls, cpu: Cpu) -> bool:
        """It says so: everywhere."""
        return True

    def _run(self, inputs: Mapping[str, Any]) -> Tensors:
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))


def _maxima(editor: Editor) -> None:
    """Toys know no ReLU."""
    zero = editor.constant(np.float32(0), "toy")
    for relu in editor.nodes("Relu"):
        editor.remove(relu)
        editor.add("Max", [relu.input[0], zero], relu.output[0], relu.name)
    editor.finish()


@TARGETS.register("toy")
class ToyTarget(Target):
    """The graph and what it says about itself in a zip archive."""

    name = "toy"
    suffix = ".toy"
    engine = ToyEngine

    def passes(self, network: MattingNetwork, shape: FrameShape) -> Sequence[Pass]:
        """One of its own."""
        return (_maxima,)

    def write(self, network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
        """Whole or not at all."""
        content = self.graph(network, shape).SerializeToString()
        with atomic_path(out) as temporary:
            pack(temporary, content, metadata)


def pack(file: Path, content: bytes, metadata: Mapping[str, str]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(GRAPH, content)
        archive.writestr(SAID, json.dumps(dict(metadata)))


def unpack(file: Path) -> tuple[Any, dict[str, str]]:
    with zipfile.ZipFile(file) as archive:
        return onnx.load_model_from_string(archive.read(GRAPH)), json.loads(archive.read(SAID))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("toy")
    draw_folder_clip(root / "clips" / "0", 0)
    return Workplace(root)


@pytest.fixture(scope="module")
def run(place: Workplace) -> Path:
    """Of integers that a CPU without VNNI may compute wrongly."""
    return write_run(place.root / "run", replace(spec("w8a8"), overflow="vnni"), place.root / "clips")


@pytest.fixture(scope="module")
def file(place: Workplace, run: Path) -> Path:
    out = place.root / "a.toy"
    done = place.run("export", f"checkpoint={run}", "target=toy", f"out={out}", "size=96x64")
    assert done.status == 0 and done.out.strip() == str(out) and done.err == "", done.err
    return out


def test_a_toy_is_written_opened_and_verified(place: Workplace, run: Path, file: Path) -> None:
    kinds = {node.op_type for node in unpack(file)[0].graph.node}
    assert "Max" in kinds and "Relu" not in kinds and "DequantizeLinear" in kinds
    engine = open_engine(file, threads=1)
    assert isinstance(engine, ToyEngine) and engine.frame_size == SIZE and engine.metadata["bits"] == "w8a8"
    assert verify(load_checkpoint(run), engine, [moving_portrait(SIZE, 3)]).passed
    done = place.run("export", "verify", f"checkpoint={run}", f"file={file}", "frames=3", "threads=1")
    assert done.status == 0 and "passed: 3 frames" in done.out and done.err == "", done.err


def test_commands_guard_its_files(place: Workplace, run: Path, file: Path) -> None:
    again = place.run("export", f"checkpoint={run}", "target=toy", f"out={file}", "size=96x64")
    assert f"{file} is there already" in again.line()
    other = place.run("export", f"checkpoint={run}", "target=toy", f"out={file}.onnx")
    assert "target=toy needs a name that ends in .toy" in other.line()


def test_its_engine_decides_what_is_exact(run: Path, file: Path) -> None:
    network = load_checkpoint(run)
    said = {
        name: describe(run, read_info(run), network, FrameShape(*SIZE), "1", TARGETS[name]())["overflow"]
        for name in ("onnx", "openvino", "toy")
    }
    assert said == {"onnx": "vnni", "openvino": "vnni", "toy": "safe"}
    assert open_engine(file, threads=1).metadata["overflow"] == "safe"


def test_a_broken_toy_fails(place: Workplace, run: Path, file: Path, tmp_path: Path) -> None:
    half, wrong = tmp_path / "half.toy", tmp_path / "wrong.toy"
    half.write_bytes(file.read_bytes()[:1000])
    assert "half.toy is no toy" in place.run("export", "verify", f"checkpoint={run}", f"file={half}").line()
    model, said = unpack(file)
    (weight,) = [node for node in model.graph.node if node.name == "decoder.decode1.conv.0/weight"]
    (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == weight.input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 8, scale.name))
    pack(wrong, model.SerializeToString(), said)
    parity = verify(load_checkpoint(run), open_engine(wrong, threads=1), [moving_portrait(SIZE, 3)])
    assert not parity.passed and parity.layers == () and not parity.saturating  # it tells nothing of its layers


def test_it_is_benchmarked_by_its_own_name(file: Path) -> None:
    (contender,) = file_contenders(file, file.name, 1, ("f32", "bf16"))
    assert contender.name == "Toy a.toy" and contender.files == (file,)
    assert contender.open().matte(np.zeros((*SIZE, 3), np.uint8)).alpha.shape == SIZE


def test_its_name_stands_beside_the_others() -> None:
    assert {"onnx", "openvino", "toy"} <= set(TARGETS.names()) and engines_for(Path("a.toy")) == ("toy",)
    assert all(TARGETS[name].name == name for name in TARGETS.names())
    assert all(target.engine in ENGINES.values() for target in TARGETS.values())
    with pytest.raises(ConfigError, match=r"neither \.bits nor .*\.toy"):
        open_engine(Path("a.pt"))
