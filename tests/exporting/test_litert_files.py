"""``.tflite`` files: whole networks against PyTorch, states as codes, what a file says, and what is refused."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import SIZE
from deploy_runs import random_quantized, spec
from networks import random_rvm
from ptq4vm.engines.files.litert import LiteRtEngine
from ptq4vm.errors import ConfigError, ExportError
from ptq4vm.exporting.shape import FrameShape
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.verify import moving_portrait, open_engine, verify
from ptq4vm.models.base import MattingNetwork

pytest.importorskip("onnx")
interpreters = pytest.importorskip("ai_edge_litert.interpreter")

SHAPE = FrameShape(*SIZE)
CLIP = moving_portrait(SIZE, 4)
SAID = {"version": "1.2.3", "bits": "w8a8", "method": "ptq4vm – ü"}


@functools.cache
def network(
    bits: str, granularity: str = "tensor", placement: str = "engine", stores: str = "operations"
) -> MattingNetwork:
    return random_quantized(replace(spec(bits, granularity, placement), stores=stores))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "a.tflite"
    TARGETS["litert"]().write(network("w8a8"), path, SHAPE, SAID)
    return path


def test_integers_from_one_end_to_the_other(file: Path) -> None:
    engine = LiteRtEngine(file, threads=1)
    assert engine.metadata == SAID and engine.frame_size == SIZE
    parity = verify(network("w8a8"), engine, [CLIP])
    assert parity.passed, parity
    # the head, and the colours' normalization, are of floats
    assert engine.executed_types() == {("Convolution", "i8"): 77, ("Convolution", "f32"): 2}
    assert file.stat().st_size < 1.2 * sum(p.numel() for p in network("w8a8").parameters())


@pytest.mark.parametrize(
    "choice",
    (
        pytest.param(("w4a8", "tensor", "engine", "operations"), marks=pytest.mark.slow),
        pytest.param(("w4a4", "tensor", "engine", "operations"), marks=pytest.mark.slow),
        ("w8a8", "mixed", "engine", "layers"),
        ("w4a4", "channel", "engine", "layers"),
        pytest.param(("w8a8", "mixed", "input", "layers"), marks=pytest.mark.slow),
        pytest.param(("w4a4", "mixed", "input", "layers"), marks=pytest.mark.slow),
        ("w8a8", "tensor", "output", "layers"),
    ),
    ids="-".join,
)
def test_networks_quantized_otherwise(choice: tuple[str, str, str, str], tmp_path: Path) -> None:
    TARGETS["litert"]().write(network(*choice), tmp_path / "a.tflite", SHAPE, {})
    parity = verify(network(*choice), LiteRtEngine(tmp_path / "a.tflite", threads=1), [CLIP])
    # with random weights a value between two of 16 codes that goes the other way moves all that comes after it
    assert parity.passed or (choice[0] == "w4a4" and parity.mean < 20 / 255 and parity.mad_change < 0.02), parity


@pytest.mark.parametrize("refiner", ("fast_guided_filter", "deep_guided_filter"))
def test_float_networks_with_their_filter_inside(refiner: str, tmp_path: Path) -> None:
    float_network = random_rvm("mobilenetv3", refiner)
    shape = FrameShape(96, 128, downsample_ratio=0.5)
    TARGETS["litert"]().write(float_network, tmp_path / "a.tflite", shape, {"downsample_ratio": "0.5"})
    engine = open_engine(tmp_path / "a.tflite", 1)
    parity = verify(float_network, engine, [moving_portrait((96, 128), 3)])
    assert parity.mean < 1e-5 and engine.downsample_ratio == 0.5


@pytest.mark.parametrize("bits", ("w8a8", "w4a4"))
def test_states_go_in_and_come_out_as_codes(bits: str, file: Path, tmp_path: Path) -> None:
    TARGETS["litert"]().write(network(bits), tmp_path / "a.tflite", SHAPE, {})
    interpreter = interpreters.Interpreter(model_path=str(tmp_path / "a.tflite"))
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature == {
        "inputs": ["r1i", "r2i", "r3i", "r4i", "src"],
        "outputs": ["fgr", "pha", "r1o", "r2o", "r3o", "r4o"],
    }
    before, after = (
        {each["name"]: each for each in found}
        for found in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    for number in range(1, 5):
        one, other = before[f"r{number}i"], after[f"r{number}o"]
        assert one["dtype"] == other["dtype"] == np.int8
        assert one["quantization"] == other["quantization"] and tuple(one["shape"]) == tuple(other["shape"])
    assert before["src"]["dtype"] == np.int8 and before["src"]["quantization"] == (np.float32(1 / 255), -128)


def test_a_video_begins_anew(file: Path) -> None:
    engine = LiteRtEngine(file, threads=1)
    frames = CLIP.frames.permute(0, 2, 3, 1).numpy()
    first, second = (engine.matte(frames[0]).alpha for _ in range(2))
    engine.reset()
    np.testing.assert_array_equal(engine.matte(frames[0]).alpha, first)
    assert np.abs(second - first).max() > 1e-3  # it does remember


def test_any_number_of_threads_gives_the_same(file: Path) -> None:
    frame = CLIP.frames[0].permute(1, 2, 0).numpy()
    one, two = (LiteRtEngine(file, threads).matte(frame) for threads in (1, 2))
    np.testing.assert_array_equal(one.alpha, two.alpha)
    with pytest.raises(ConfigError, match="threads=0"):
        LiteRtEngine(file, 0)


def test_the_same_bytes_each_time(file: Path, tmp_path: Path) -> None:
    TARGETS["litert"]().write(network("w8a8"), tmp_path / "b.tflite", SHAPE, SAID)
    assert (tmp_path / "b.tflite").read_bytes() == file.read_bytes()


def test_every_cpu_computes_it_exactly() -> None:
    assert TARGETS["litert"]().exact(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", (3, 5000, -20_000, -5))
def test_a_byte_that_is_another_is_found(place: int, file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    (tmp_path / "bad.tflite").write_bytes(content)
    with pytest.raises(ExportError, match=r"bad\.tflite .*(damaged|another)") as caught:
        LiteRtEngine(tmp_path / "bad.tflite")
    assert "\n" not in str(caught.value)


def test_files_that_are_none_of_ours(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    other = tmp_path / "other.tflite"
    for wrong in (
        b"",
        b"nonsense" * 9,
        content[: len(content) // 2],
        content + b"\0",
        content[:4] + b"TFL3" + bytes(64),
    ):
        other.write_bytes(wrong)
        with pytest.raises(ExportError, match=r"other\.tflite is") as caught:
            LiteRtEngine(other)
        assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match=r"none\.tflite is missing: give a file that `ptq4vm export target=litert`"):
        LiteRtEngine(tmp_path / "none.tflite")


@pytest.mark.parametrize(
    ("shape", "error", "said"),
    (
        (FrameShape(*SIZE, dynamic=True), ConfigError, "a .tflite file has one size: leave dynamic out"),
        (FrameShape(90, 131, downsample_ratio=0.5), ExportError, "131x90 times 0.5 is no whole size"),
    ),
)
def test_sizes_that_a_file_cannot_have(shape: FrameShape, error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        TARGETS["litert"]().write(network("w8a8"), tmp_path / "a.tflite", shape, {})
    assert not (tmp_path / "a.tflite").exists()


def test_without_the_package_one_line_says_what_to_install(file: Path) -> None:
    script = (
        "import sys; sys.modules['ai_edge_litert'] = None\n"
        "from pathlib import Path; from ptq4vm.engines.registry import open_engine\n"
        "from ptq4vm.errors import ConfigError\n"
        f"try: open_engine(Path({str(file)!r}))\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "ai_edge_litert is not installed" in done.stdout and "pip install 'ptq4vm[litert]'" in done.stdout
    assert done.stdout.count("\n") == 1
