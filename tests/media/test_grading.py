"""More than 8 bits: what the network sees of it, and that the film keeps its own codes and tags."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deploy_media import RATE, encode
from ptq4vm.engines.base import Matte
from ptq4vm.media.codecs import choose_codec, deeper
from ptq4vm.media.frames import Frame, cover
from ptq4vm.media.grading import HLG, PQ, Deep, Grade
from ptq4vm.media.video import VideoReader
from ptq4vm.media.writers import open_video
from ptq4vm.video.composing import Colour, composer

SIZE = (32, 64)
GRADES = {"ordinary": Grade(1, 1), "HLG": Grade(HLG, 9), "PQ": Grade(PQ, 9)}


def ramp(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Codes that 8 bits make one of, ``(H, W, 3)`` uint16."""
    columns = np.linspace(20000, 22000, size[1]).astype(np.uint16)
    return np.repeat(columns[None, :, None], size[0], 0).repeat(3, 2)


def film(path: Path, transfer: int, primaries: int = 9) -> Path:
    """A lossless film of ramps, 10 bits."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=RATE)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = 9, 1
        context.color_primaries, context.color_trc = primaries, transfer
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(ramp(), format="rgb48le")
            out.mux(stream.encode(frame.reformat(format="yuv444p10le", dst_colorspace=9, dst_color_range=1)))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("grade", GRADES.values(), ids=GRADES)
def test_the_view_can_be_gone_back_from(grade: Grade) -> None:
    codes = np.arange(0, 65536, 16, dtype=np.uint16).reshape(-1, 1, 1).repeat(3, 2)
    view = grade.view(codes)
    assert view.dtype == np.uint8 and view.min() == 0 and view.max() == 255
    assert (np.diff(view[:, 0, 0].astype(int)) >= 0).all()
    again = grade.view(np.rint(grade.lift((view / 255).astype(np.float32)) * 65535).astype(np.uint16))
    assert np.abs(again.astype(int) - view).max() <= 1


def test_white_of_ordinary_pictures_is_that_of_the_standard() -> None:
    """BT.2408: 58 % of PQ and 75 % of HLG; black stays black."""
    white, black = np.ones(3, np.float32), np.zeros(3, np.float32)
    assert GRADES["PQ"].ordinary(white) == pytest.approx(0.58, abs=0.005)
    assert GRADES["HLG"].ordinary(white) == pytest.approx(0.75, abs=0.005)
    for grade in GRADES.values():
        assert grade.ordinary(black) == pytest.approx(0, abs=1e-3)
    red = GRADES["PQ"].ordinary(np.array([1, 0, 0], np.float32))
    assert red[0] > red[1] > red[2] > 0.1, "a red of BT.709 is no pure red of BT.2020"
    assert np.array_equal(GRADES["ordinary"].ordinary(white), white)


@pytest.mark.parametrize("grade", GRADES.values(), ids=GRADES)
@pytest.mark.parametrize("output", ["composite", "foreground", "rgba"])
def test_what_the_network_leaves_alone_keeps_every_bit(grade: Grade, output: str) -> None:
    codes = ramp()
    view = grade.view(codes)
    alpha = np.zeros(SIZE, np.float32)
    alpha[:, :40] = 1
    frame = Frame(0, view, Fraction(0), Deep(codes, grade))
    made = composer(output, Colour((0, 0, 0)))(frame, [Matte(alpha, np.divide(view, 255, dtype=np.float32))])
    assert made.dtype == np.uint16 and np.abs(made[:, :40, :3].astype(int) - codes[:, :40]).max() <= 1
    assert made[:, 40:, :3].max() <= 70, "black, in every grade"
    if output == "rgba":
        assert (made[..., 3] == np.rint(alpha * 65535)).all()


@pytest.mark.parametrize(
    ("codec", "suffix", "bits"), [("h265", ".mp4", 10), ("prores", ".mov", 10), ("h264", ".mp4", 8)]
)
@pytest.mark.parametrize("transfer", [1, PQ, HLG])
def test_bits_and_tags_are_kept(tmp_path: Path, codec: str, suffix: str, bits: int, transfer: int) -> None:
    reader = VideoReader(film(tmp_path / "in.mkv", transfer), deep=True)
    target = tmp_path / f"out{suffix}"
    with open_video(target, reader.info, SIZE, choose_codec(suffix, codec, False)) as writer:
        for item in reader.read():
            assert isinstance(item, Frame) and item.deep is not None
            assert np.abs(item.deep.codes.astype(int) - ramp()).max() <= 80  # 10 bits, limited range
            assert item.image.dtype == np.uint8
            writer.write(item, item.deep.codes)
    with av.open(str(target)) as out:
        frame = next(out.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)) == (9, 9, transfer)
    luma = frame.format.components[0].bits
    assert luma >= bits if bits > 8 else luma == 8
    again = VideoReader(target, deep=True)
    found = next(item for item in again.read() if isinstance(item, Frame))
    codes = found.image.astype(int) * 257 if found.deep is None else found.deep.codes.astype(int)
    error = float(np.abs(codes - ramp()).mean())
    assert error < 60 if bits > 8 else error > 60


def test_pq_without_its_bits_is_shown_in_ordinary_tones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = VideoReader(film(tmp_path / "in.mkv", PQ))
    frame = next(item for item in reader.read() if isinstance(item, Frame))
    assert frame.deep is None and reader.info.look.transfer == 1 and reader.info.depth == 8
    assert np.abs(frame.image.astype(int) - GRADES["PQ"].view(ramp())).max() <= 1
    assert "matted and written with 8, PQ as ordinary tones" in caplog.text


@pytest.mark.parametrize(
    ("alpha", "kept", "said"),
    [
        (False, 8, "; use codec=h265 (.mp4, .mov, .mkv) or codec=prores (.mov)"),
        (True, 8, "; use codec=prores (.mov)"),
        (False, 10, ""),
    ],
)
def test_what_keeps_more_bits_is_named(alpha: bool, kept: int, said: str) -> None:
    assert deeper(alpha, 12, kept) == said


def test_eight_bits_bring_no_more(tmp_path: Path) -> None:
    reader = VideoReader(encode(tmp_path / "in.mp4", count=3), deep=True)
    assert all(item.deep is None for item in reader.read() if isinstance(item, Frame)) and reader.info.depth == 8


def test_frames_that_change_their_size_keep_their_bits() -> None:
    assert np.abs(cover(ramp(), (16, 32)).astype(int).mean() - ramp().mean()) < 20
