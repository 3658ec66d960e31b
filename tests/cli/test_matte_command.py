"""``ptq4vm matte`` from beginning to end, with a network of random weights."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from commands import Done, Workplace, files
from deploy_media import SIZE, decode, encode, picture, sounds

FEW = 4
WAIT = 60  # seconds that a busy machine may need


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("video") / "in.mp4", sound="aac", count=FEW)


def matte(workplace: Workplace, source: Path | str, out: Path, *arguments: str) -> Done:
    return workplace.run("matte", f"input={source}", f"out={out}", f"weights={workplace.weights}", *arguments)


def test_help(workplace: Workplace) -> None:
    done = workplace.run("matte", "--help")
    assert done.status == 0 and "output=composite" in done.out and not done.err


def test_composite_over_a_video(workplace: Workplace, video: Path, tmp_path: Path) -> None:
    done = matte(workplace, video, tmp_path / "out.mp4", f"background={video}", "scene_cut=true")
    assert done.status == 0 and done.out == f"{tmp_path / 'out.mp4'}\n", done.err
    assert done.err.startswith(f"{FEW} frames in ") and done.err.count("\n") == 1
    frames, times = decode(tmp_path / "out.mp4")
    assert len(frames) == FEW and times == decode(video)[1] and sounds(tmp_path / "out.mp4") == sounds(video)
    assert files(tmp_path) == {"out.mp4"}


def test_ratio_and_rgba(workplace: Workplace, video: Path, tmp_path: Path) -> None:
    done = matte(workplace, video, tmp_path / "out.mov", "output=rgba", "downsample_ratio=0.5", "frames=2")
    assert done.status == 0, done.err
    frames = decode(tmp_path / "out.mov", form="rgba")[0]
    assert len(frames) == 2 and frames[0].shape == (*SIZE, 4)
    assert len(np.unique(frames[1][..., 3])) > 10


def test_image_to_image_and_folder_to_folder(workplace: Workplace, tmp_path: Path) -> None:
    clip = workplace.data / "eval" / "set" / "a" / "com"
    behind = tmp_path / "behind.png"
    Image.fromarray(picture(0)).save(behind)
    done = matte(workplace, clip / "0002.png", tmp_path / "one.png", f"background={behind}")
    assert done.status == 0 and Image.open(tmp_path / "one.png").size == (96, 64), done.err
    done = matte(workplace, clip, tmp_path / "alpha", "output=alpha", "frames=3")
    assert done.status == 0 and files(tmp_path / "alpha") == {".matte.json", "0000.png", "0001.png", "0002.png"}
    done = matte(workplace, clip, tmp_path / "alpha", "output=alpha")
    assert done.status == 0 and len(files(tmp_path / "alpha")) == 7 and "3 frames already" in done.err
    done = matte(workplace, clip, tmp_path / "alpha", "output=foreground")
    assert "made with another output" in done.line()


def test_compare(workplace: Workplace, tiny_run: tuple[Path, Done], video: Path, tmp_path: Path) -> None:
    run_dir, _ = tiny_run
    done = matte(workplace, video, tmp_path / "out.mkv", f"checkpoint={run_dir}", "compare=true", "frames=2")
    assert done.status == 0, done.err
    frame = decode(tmp_path / "out.mkv")[0][1]
    assert frame.shape == (SIZE[0] + 20, 4 * SIZE[1], 3)
    tiles = np.split(frame[: SIZE[0]].astype(int), 4, axis=1)
    assert np.abs(tiles[0] - picture(1)).mean() < 8
    assert np.abs(tiles[1] - tiles[2]).mean() > 0 and np.ptp(tiles[1], axis=2).max() < 12, "alphas are grey"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["input"], "cannot read 'input'"),
        (["width=3"], "width is unknown"),
        (["size=3"], "size=3: write WIDTHxHEIGHT"),
        (["size=64x96"], "size is what an exported file runs at, and checkpoint=fp32"),
        (["checkpoint=nowhere.onnx", "size=file", "compare=true"], "compare=true takes frames"),
        (["input="], "input has no value"),
        (["out="], "out has no value"),
        (["compare=maybe"], "neither true nor false"),
        (["frames=two"], "frames=two is no whole number"),
        (["frames=0"], "frames=0 is none"),
        (["fps=0"], "fps=0 is out of range"),
        (["downsample_ratio=2"], "downsample_ratio=2"),
        (["output=mask"], "output=mask is unknown"),
        (["background=#12"], "rrggbb"),
        (["background=nowhere.jpg"], "background=nowhere.jpg is no file"),
        (["compare=true"], "give checkpoint=RUN_DIR"),
        (["engine=tensorrt"], "engine=tensorrt is unknown"),
        (["engine=openvino"], "engine=openvino does not run checkpoint=fp32"),
        (["checkpoint=nowhere"], "nowhere is no folder"),
        (["checkpoint=nowhere.onnx"], "nowhere.onnx is missing"),
        (["checkpoint=nowhere.xml", "downsample_ratio=0.5"], "was chosen when nowhere.xml was exported"),
        (["codec=av2"], "codec=av2 is unknown"),
        (["output=rgba"], "rgba does not fit into .mp4"),
        (["input=nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["out={here}/in.mp4", "overwrite=true"], "is the input itself"),
        (["out={here}/exists.mp4"], "exists.mp4 exists"),
        (["out={here}/exists.mp4/deeper.mp4"], "cannot be written"),
        (["out={here}/out.png"], "is one image"),
        (["out={here}/out.gif"], "is nothing that can be written"),
        (["out={here}/frames", "codec=h264"], "codec=h264 is for videos"),
        (["out={here}", "output=alpha"], "holds other files"),
    ],
)
def test_one_line_for_what_cannot_be(
    workplace: Workplace, video: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "in.mp4").write_bytes(video.read_bytes())
    (tmp_path / "exists.mp4").write_text("mine")
    before = files(tmp_path)
    given = [argument.format(here=tmp_path) for argument in arguments]
    done = matte(workplace, tmp_path / "in.mp4", tmp_path / "out.mp4", *given)
    assert words in done.line(), done.err
    assert files(tmp_path) == before and (tmp_path / "exists.mp4").read_text() == "mine"


def test_overwrite_replaces_only_when_done(workplace: Workplace, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("old")
    done = matte(workplace, video, out, "overwrite=true", "checkpoint=nowhere")
    assert done.status == 1 and out.read_text() == "old"
    done = matte(workplace, video, out, "overwrite=true", "frames=1")
    assert done.status == 0 and len(decode(out)[0]) == 1


def test_what_came_before_a_damaged_frame_is_kept(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(4):
        Image.fromarray(picture(index)).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "2.png").write_bytes((tmp_path / "in" / "2.png").read_bytes()[:100])
    done = matte(workplace, tmp_path / "in", tmp_path / "out.mp4")
    line = done.line()
    assert "2.png" in line and f"2 frames before it are in {tmp_path / 'out.mp4'}" in line
    assert len(decode(tmp_path / "out.mp4")[0]) == 2


class EndlessCamera:
    """A camera that somebody has to stop."""

    def __init__(self, number: int) -> None:
        self.count = 0

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, NDArray[np.uint8]]:
        self.count += 1
        return True, picture(self.count % 8)

    def get(self, key: int) -> float:
        return 30.0

    def release(self) -> None:
        pass


def test_interrupted_camera_leaves_a_film(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras: list[EndlessCamera] = []
    monkeypatch.setattr("cv2.VideoCapture", lambda number: cameras.append(EndlessCamera(number)) or cameras[-1])

    def press() -> None:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline and not (cameras and cameras[0].count > 12):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    pressing = threading.Thread(target=press)
    pressing.start()
    done = matte(workplace, "0", tmp_path / "out.mp4", "output=alpha")
    pressing.join()
    assert done.status == 130 and signal.getsignal(signal.SIGINT) == before
    frames, _ = decode(tmp_path / "out.mp4")
    assert len(frames) >= 3
    assert done.err == f"ptq4vm matte: interrupted after {len(frames)} frames, which are in {tmp_path / 'out.mp4'}\n"
    assert files(tmp_path) == {"out.mp4"}
