"""``ptq4vm matte`` of many videos: a folder or a list, gone on with, and a bad one among them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from commands import Workplace, files
from deploy_media import decode, encode
from ptq4vm.api import batch_of, matte_all
from ptq4vm.errors import ConfigError


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name in ("b10.mp4", "b9.mkv"):
        encode(folder / name, count=3)
    (folder / "bad.mov").write_bytes(b"no film")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_folder_is_matted_and_gone_on_with(workplace: Workplace, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (f"out={out}", f"weights={workplace.weights}", "output=alpha", "downsample_ratio=0.5")
    done = workplace.run("matte", f"input={films}", *options)
    assert done.status == 1 and "bad.mov is no video that can be read" in done.err
    assert "2 of 3 matted, 6 frames in " in done.err and "0 there already; 1 failed" in done.err
    assert done.out == f"{out / 'b9.mp4'}\n{out / 'b10.mp4'}\n" and files(out) == {"b9.mp4", "b10.mp4"}
    before = (out / "b9.mp4").stat().st_mtime_ns
    (out / "b10.mp4").unlink()
    done = workplace.run("matte", f"input={films}", *options)
    assert "1 of 3 matted" in done.err and "1 there already; 1 failed" in done.err
    assert (out / "b9.mp4").stat().st_mtime_ns == before and len(decode(out / "b10.mp4")[0]) == 3


def test_a_list_is_matted(workplace: Workplace, films: Path, tmp_path: Path) -> None:
    both = f"{films / 'b10.mp4'},{films / 'b9.mkv'}"
    wishes = ("output=rgba", "frames=1")
    out = tmp_path / "out"
    done = workplace.run("matte", f"input={both}", f"out={out}", f"weights={workplace.weights}", *wishes)
    assert done.status == 0 and files(out) == {"b10.mov", "b9.mov"}, done.err


def test_what_is_no_batch(films: Path, tmp_path: Path) -> None:
    strange = tmp_path / "a,b.mp4"
    shutil.copy(films / "b10.mp4", strange)
    assert batch_of(str(strange)) == () and batch_of("0") == () and batch_of(str(films / "b10.mp4")) == ()
    assert batch_of(f"{strange},missing.mp4") == ()
    assert [path.name for path in batch_of(str(films))] == ["b9.mkv", "b10.mp4", "bad.mov"]


def test_what_cannot_be_is_refused(films: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"out=one\.mp4 is one file, and there are 2 inputs"):
        matte_all([films / "b9.mkv", films / "b10.mp4"], "one.mp4")
    with pytest.raises(ConfigError, match="two of the inputs have the same name"):
        matte_all([films / "b9.mkv", tmp_path / "b9.mp4"], tmp_path / "out")


def test_a_stop_begins_no_other(films: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    done = matte_all([films / "b9.mkv"], tmp_path / "out", stop=stop)
    assert done.stopped and not done.made and not (tmp_path / "out").exists()
