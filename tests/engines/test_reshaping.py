"""One file at every aspect: a re-shaped graph is the one that would be exported for that size, to the last bit."""

from __future__ import annotations

import functools
import logging
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import toy_family  # noqa: F401  # registers the family whose name the file has
from commands import SIZE
from deploy_runs import random_quantized, spec, write_run
from networks import tiny_matting
from ptq4vm import api
from ptq4vm.engines.anysize import AnySizeEngine, size_for
from ptq4vm.engines.registry import open_engine
from ptq4vm.engines.step import Port, StepEngine
from ptq4vm.errors import ConfigError, ExportError
from ptq4vm.exporting.metadata import describe_float
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import TARGETS
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.models.rvm.network import RVM
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

OTHER = (48, 112)
"""Odd multiples of 16, as tall as no file's half."""
ONNX_FILES = ("operations", "w8a8-mixed-engine", "w4a4-mixed-input", "w8a8-tensor-output")
FILES = (
    *(("onnx", choice) for choice in ONNX_FILES),
    ("openvino", "w8a8-mixed-engine"),
    ("openvino", "w8a8-mixed-input"),
    ("bits", "bivm"),
)
SLOW = (("openvino", "w8a8-mixed-input"), ("onnx", "w8a8-tensor-output"))
SAYS = {"overflow": "safe", "bits": "w8a8", "size_step": "16"}
RVM_OF = {"family": "rvm", "arguments": {"variant": "mobilenetv3"}}


@functools.cache
def network(choice: str) -> MattingNetwork:
    if choice == "bivm":
        from test_bits_engine import decided

        return decided({})
    if choice == "operations":
        small = ActivationSpec(8, observer="minmax")
        return random_quantized(QuantSpec(WeightSpec(8, observer="minmax"), small, "engine", stores="operations"))
    return random_quantized(spec(*choice.split("-")))


@functools.cache
def graph(choice: str, size: tuple[int, int]) -> Any:
    return TARGETS["onnx"]().graph(network(choice), FrameShape(*size))


@functools.cache
def _written(target: str, choice: str, size: tuple[int, int]) -> dict[str, bytes]:
    """The files of an exported network by suffix."""
    kind = TARGETS[target]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"a{kind.suffix}"
        kind.write(network(choice), file, FrameShape(*size), SAYS)
        return {each.suffix: each.read_bytes() for each in kind.files(file)}


def written(folder: Path, target: str, choice: str, size: tuple[int, int], **said: str) -> Path:
    """A file that says it may be re-shaped, or what else."""
    file = folder / f"{choice}-{size[1]}x{size[0]}{TARGETS[target].suffix}"
    if target != "onnx":
        for suffix, content in _written(target, choice, size).items():
            file.with_suffix(suffix).write_bytes(content)
        return file
    model = onnx.ModelProto()
    model.CopyFrom(graph(choice, size))
    onnx.helper.set_model_props(model, {**SAYS, **said})
    file.write_bytes(model.SerializeToString())
    return file


def pictures(size: tuple[int, int], count: int = 3) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("target", "choice"),
    [pytest.param(*file, id="-".join(file), marks=[pytest.mark.slow] if file in SLOW else []) for file in FILES],
)
def test_a_reshaped_file_is_the_one_exported_for_that_size(target: str, choice: str, tmp_path: Path) -> None:
    if target == "bits":
        pytest.importorskip("numba")
    engine = open_engine(written(tmp_path, target, choice, SIZE), 1)
    before = [engine.matte(frame).alpha for frame in pictures(SIZE)]
    engine.reshape(OTHER)
    assert engine.frame_size == OTHER and engine.file_size == SIZE
    own = open_engine(written(tmp_path, target, choice, OTHER), 1)
    for frame in pictures(OTHER):
        found, expected = engine.matte(frame), own.matte(frame)
        np.testing.assert_array_equal(found.alpha, expected.alpha)
        np.testing.assert_array_equal(found.foreground, expected.foreground)
    assert engine.state_shapes(OTHER) == own.state_shapes(OTHER)
    assert engine.executed_types() == own.executed_types()
    engine.reshape(SIZE)
    for frame, alpha in zip(pictures(SIZE), before, strict=True):
        np.testing.assert_array_equal(engine.matte(frame).alpha, alpha)


@pytest.mark.parametrize("choice", ONNX_FILES)
def test_graphs_hold_no_sizes(choice: str) -> None:
    found, other = (graph(choice, size).graph for size in (SIZE, OTHER))
    assert list(found.node) == list(other.node)
    assert list(found.initializer) == list(other.initializer)


@pytest.mark.parametrize("variant", ["mobilenetv3", "resnet50"])
def test_files_say_whether_their_graph_holds_sizes(variant: str) -> None:
    def said(shape: FrameShape, chosen: MattingNetwork) -> str | None:
        return describe_float(RVM_OF, chosen, "none", shape, "1").get("size_step")

    for chosen in (RVM(variant), BiVM()):
        assert said(FrameShape(288, 512), chosen) == "16"
        for shape in (
            FrameShape(288, 512, dynamic=True),
            FrameShape(720, 1280, downsample_ratio=0.4),
            FrameShape(288, 520),
            FrameShape(270, 480),
        ):
            assert said(shape, chosen) is None
    assert said(FrameShape(288, 512), tiny_matting()) is None


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_what_cannot_be_is_refused_and_leaves_the_engine_as_it_was(target: str, tmp_path: Path) -> None:
    file = written(tmp_path, target, "w8a8-mixed-engine", SIZE)
    engine = open_engine(file, 1)
    frames = pictures(SIZE)
    expected = engine.matte(frames[0]).alpha
    with pytest.raises(ConfigError, match=r"size=97x64: .* multiples of 16"):
        engine.reshape((64, 97))
    with pytest.raises(ConfigError, match="out of range"):
        engine.reshape((16, 32000))
    file.rename(tmp_path / "gone")
    with pytest.raises(ExportError):
        engine.reshape((96, 64))
    assert engine.frame_size == SIZE
    np.testing.assert_array_equal(engine.matte(frames[0]).alpha, expected)


def test_a_file_that_does_not_say_it_has_one_size(tmp_path: Path) -> None:
    frames = pictures(SIZE)
    older = open_engine(written(tmp_path, "onnx", "w8a8-mixed-engine", SIZE, size_step=""), 1)
    expected = older.matte(frames[0]).alpha
    with pytest.raises(ExportError, match=r"runs at 96x64 alone, not re-shaped to 64x96: export again"):
        older.reshape((96, 64))
    np.testing.assert_array_equal(older.matte(frames[0]).alpha, expected)


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.sampled_from([(288, 512), (512, 288), (384, 384)]))
def test_sizes_have_the_frames_aspect_and_the_files_area(size: tuple[int, int], own: tuple[int, int]) -> None:
    rows, columns = size_for(size, own, 16)
    assert rows % 16 == columns % 16 == 0 and min(rows, columns) >= 32
    assert 0.85 < rows * columns / (own[0] * own[1]) < 1.2 or min(rows, columns) < 160
    if 1 / 4 < size[0] / size[1] < 4:
        assert abs(math.log(rows / columns / (size[0] / size[1]))) < 0.07


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1080, 1920), (288, 512)), ((1920, 1080), (512, 288)), ((480, 640), (336, 448)), ((1000, 1000), (384, 384)),
        ((144, 176), (352, 432)), ((1088, 1920), (288, 512)), ((1080, 2560), (256, 592)), ((10, 4000), (32, 4608)),
    ],
)  # fmt: skip
def test_sizes_of_usual_frames(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert size_for(size, (288, 512), 16) == expected


class Grey(StepEngine):
    """Alpha is the first colour. It runs at other sizes unless it ``fails``."""

    def __init__(self, fails: bool = False, **said: str) -> None:
        super().__init__("a.onnx", [Port("src", (1, 3, *SIZE))], ["fgr", "pha"], said)
        self.seen: list[tuple[int, ...]] = []
        self.fails = fails

    def _rebuild(self, size: tuple[int, int], inputs: Any) -> None:
        if self.fails and size != SIZE:
            raise ExportError("this engine cannot")

    def _run(self, inputs: Any) -> Any:
        self.seen.append(inputs["src"].shape[2:])
        return {"pha": inputs["src"][:, :1], "fgr": inputs["src"]}


def seen(engine: StepEngine, frame: tuple[int, int], size: tuple[int, int] | str = "auto") -> Any:
    """Size of the picture that the network saw of a frame."""
    AnySizeEngine(engine, 1, size).matte(pictures(frame)[0])
    return engine.seen[-1]  # type: ignore[attr-defined]


def test_frames_run_at_their_own_aspect_where_the_file_permits_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert seen(Grey(size_step="16"), (192, 128)) == (96, 64)
    assert caplog.messages == ["frames of 128x192 run through a.onnx at 64x96"]
    assert seen(Grey(size_step="16"), (128, 192)) == SIZE
    assert len(caplog.messages) == 1, "the file's own size is nothing to tell"
    assert seen(Grey(), (192, 128)) == SIZE, "written before"
    assert seen(Grey(size_step="16"), (192, 128), size="file") == SIZE
    assert seen(Grey(size_step="16"), (192, 128), size=(32, 48)) == (32, 48)
    assert caplog.messages[-1] == "frames of 128x192 run through a.onnx at 48x32"


def test_an_engine_that_cannot_goes_on_with_padding(caplog: pytest.LogCaptureFixture) -> None:
    engine = Grey(fails=True, size_step="16")
    assert seen(engine, (192, 128)) == SIZE
    assert caplog.messages == ["this engine cannot"]
    with pytest.raises(ExportError, match="this engine cannot"):
        AnySizeEngine(Grey(fails=True, size_step="16"), 1, (96, 64))
    with pytest.raises(ConfigError, match="size=large: write auto, file or WIDTHxHEIGHT"):
        AnySizeEngine(Grey(), 1, "large")
    with pytest.raises(ExportError, match="runs at 96x64 alone"):
        AnySizeEngine(Grey(), 1, (96, 64))


def test_an_engine_from_outside_need_not_know_of_it(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Grey):
        _rebuild = StepEngine._rebuild

    assert seen(Plain(size_step="16"), (192, 128)) == SIZE
    assert caplog.messages == ["Plain runs a.onnx at its own size alone: leave size out"]


def test_frames_of_two_sizes_in_turns_are_two_videos() -> None:
    engine = AnySizeEngine(Grey(size_step="16"), 1)
    for size in ((192, 128), (128, 192), (192, 128)):
        frame = pictures(size)[0]
        alpha = engine.matte(frame).alpha
        assert alpha.shape == size
        assert np.abs(alpha - frame[..., 0] / 255).mean() < 0.3


def test_matte_and_open_engine_take_a_size(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", spec("w8a8", "mixed", "engine"))
    file = api.export(run, tmp_path / "a.onnx", size=SIZE)
    assert open_engine(file).metadata["size_step"] == "16"
    frame = pictures((96, 64))[0]
    plain = open_engine(file, 1)
    plain.reshape((96, 64))
    alphas = [
        api.open_engine(file, threads=1, **options).matte(frame).alpha
        for options in ({}, {"size": (96, 64)}, {"size": "file"})
    ]
    for alpha, same in zip(alphas, (True, True, False), strict=True):
        assert np.array_equal(alpha, plain.matte(frame).alpha) == same
        plain.reset()
    with pytest.raises(ConfigError, match=r"size is what an exported file runs at, and checkpoint=.*: leave it out"):
        api.open_engine(run, size=(96, 64))
