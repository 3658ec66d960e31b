"""``.bits`` files: sign for sign what PyTorch computes, packed small, in any number of threads; what is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ptq4vm import api
from ptq4vm.errors import ConfigError, ExportError
from ptq4vm.exporting.targets.bits import BitsTarget
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.models.bivm.network import BiVM

pytest.importorskip("numba")
pytest.importorskip("onnx")
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ptq4vm.engines.files.bits import PROGRAM, BitsEngine

KINDS = {
    "bivm": {},
    "bimatting": {"encoder": "sbb"},
    "ebb": {"decoder": "dense"},
    "shb": {"encoder": "mobilenetv3"},
    **{f"rvm_{b}": {"encoder": "mobilenetv3", "decoder": "dense", "binarizer": b} for b in ("bnn", "dorefa", "recu")},
}
SIZE = (50, 86)  # odd at every scale


def decided(arguments: dict[str, Any], seed: int = 0) -> BiVM:
    """A network with statistics of its own, whose alpha is not the same everywhere."""
    torch.manual_seed(seed)
    network = BiVM(**arguments).train()
    with torch.no_grad():
        network(torch.rand(1, 2, 3, 64, 96))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    network.project_mat.conv.bias.data.fill_(0.5)
    network.decide()
    return network


def written(network: BiVM, path: Path, size: tuple[int, int] = SIZE, **metadata: str) -> Path:
    BitsTarget().write(network, path, FrameShape(*size, False, 1.0), {"bits": "w1a1", **metadata})
    return path


def frames(count: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    coarse = torch.from_numpy(generator.integers(0, 256, (count, 3, 7, 9)).astype(np.float32))
    smooth = F.interpolate(coarse, SIZE, mode="bilinear").round().to(torch.uint8)
    return [np.ascontiguousarray(each) for each in smooth.permute(0, 2, 3, 1).numpy()]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(decided({}), tmp_path_factory.mktemp("bits") / "bivm.bits")


OTHERS = tuple(kind for kind in KINDS if kind != "bivm")


@pytest.mark.parametrize(
    ("kind", "threads"),
    [*((kind, 3) for kind in KINDS), ("bivm", 1), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in OTHERS)],
)
def test_states_are_those_of_pytorch_to_the_bit(kind: str, threads: int, tmp_path: Path) -> None:
    network = decided(KINDS[kind])
    engine = BitsEngine(written(network, tmp_path / "x.bits"), threads)
    states: tuple = ()
    for frame in frames():
        found = engine.matte(frame)
        src = torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
        with torch.no_grad():
            wanted = network.matte(src, states)
        states = wanted.states
        for number, state in enumerate(states):
            assert np.array_equal(engine._states[f"r{number + 1}i"], state.numpy()), f"r{number + 1}"
        np.testing.assert_allclose(found.alpha, wanted.alpha[0, 0].numpy(), atol=1e-5)
        np.testing.assert_allclose(found.foreground.transpose(2, 0, 1), wanted.foreground[0].numpy(), atol=1e-5)
    assert float(wanted.alpha.std()) > 1e-3, "a matte that is the same everywhere tells nothing"


def test_the_file_is_packed(file: Path) -> None:
    assert file.stat().st_size < 750_000
    engine = BitsEngine(file, 1)
    assert engine.executed_types()[("Convolution", "bin")] == 58 and engine.frame_size == SIZE


def test_a_video_begins_anew_after_reset(file: Path) -> None:
    engine = BitsEngine(file, 1)
    first = engine.matte(frames()[0]).alpha
    engine.matte(frames()[1])
    kept = first.copy()
    engine.reset()
    assert np.array_equal(engine.matte(frames()[0]).alpha, kept) and np.array_equal(first, kept), "memory of its own"


def program_of(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(load_file(file)[PROGRAM].tobytes()))
    return found


def changed(file: Path, target: Path, program: str | None = None, **arrays: np.ndarray) -> Path:
    with safe_open(file, framework="numpy") as opened:
        said = dict(opened.metadata())
    if program is not None:
        arrays[PROGRAM] = np.frombuffer(zlib.compress(program.encode()), np.uint8)
    save_file({**load_file(file), **arrays}, target, said)
    return target


def test_damaged_files_are_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.bits"
    broken.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"broken.bits is no .bits file or is damaged"):
        BitsEngine(broken)
    with pytest.raises(ExportError, match="is missing"):
        BitsEngine(tmp_path / "none.bits")
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "other.bits")
    with pytest.raises(ExportError, match="has no program"):
        BitsEngine(tmp_path / "other.bits")
    name = next(key for key, value in load_file(file).items() if value.dtype == np.float32)
    with pytest.raises(ExportError, match="is not finite"):
        BitsEngine(changed(file, tmp_path / "nan.bits", **{name: np.full(3, np.nan, np.float32)}))
    for program in (
        "{",
        "[]",
        "{}",
        json.dumps({"inputs": {"src": [3, 8, 8]}, "outputs": ["fgr", "pha"]}),
    ):
        with pytest.raises(ExportError):
            BitsEngine(changed(file, tmp_path / "program.bits", program))
    program = program_of(file)
    conv = next(node for node in program["nodes"] if node["op"] == "BinaryConv")
    for wrong in ({"shape": [64, *conv["shape"][1:]]}, {"padding": 7}, {"in": [conv["in"][0], "src"]}, {"stride": 0}):
        other = {**program, "nodes": [{**n, **wrong} if n is conv else n for n in program["nodes"]]}
        with pytest.raises(ExportError, match="is damaged"):
            BitsEngine(changed(file, tmp_path / "sizes.bits", json.dumps(other)))
    with pytest.raises(ConfigError, match="threads=0"):
        BitsEngine(file, 0)


@pytest.mark.parametrize("shape", [FrameShape(64, 96, True, 1.0), FrameShape(64, 96, False, 0.5)])
def test_sizes_that_it_cannot_have_are_refused(shape: FrameShape, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave dynamic and downsample_ratio out"):
        BitsTarget().write(decided({}), tmp_path / "x.bits", shape, {})


def test_a_network_that_is_not_binary_is_refused(tmp_path: Path) -> None:
    network = api.build_network("rvm", {"variant": "mobilenetv3"}, pretrained=False)
    with pytest.raises(ExportError, match="target=bits"):
        BitsTarget().write(network, tmp_path / "x.bits", FrameShape(64, 96, False, 1.0), {})
    assert not (tmp_path / "x.bits").exists()


def test_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    values = {name: name for name in ("model", "method", "calibration", "licence", "version")}
    first, second = (written(decided({}), tmp_path / f"{n}.bits", **values).read_bytes() for n in "ab")
    assert first == second
