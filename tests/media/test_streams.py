"""Frames that become no file: pipes, network streams, virtual cameras."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from commands import Done, Workplace
from deploy_media import BrightEngine, decode, encode, picture
from ptq4vm.errors import ConfigError, SaveError
from ptq4vm.media.codecs import CODECS
from ptq4vm.media.frames import Frame, StreamInfo
from ptq4vm.media.readers import PacedReader, open_input
from ptq4vm.media.streams import StreamTarget, choose_stream, is_stream, open_stream
from ptq4vm.media.writers import open_video
from ptq4vm.video.composing import Colour, composer
from ptq4vm.video.loop import matte_video

SIZE, RATE = (48, 64), Fraction(25)
INFO = StreamInfo(SIZE, RATE)


def stream(target: StreamTarget, indices: tuple[int, ...], alpha: bool = False) -> None:
    with open_stream(target, INFO, SIZE, alpha) as writer:
        for index in indices:
            image = picture(index)
            whole = np.dstack([image, np.full(SIZE, 200, np.uint8)]) if alpha else image
            writer.write(Frame(index, image, index / RATE), whole)


@pytest.mark.parametrize(("codec", "alpha"), [("auto", False), ("y4m", False), ("raw", False), ("auto", True)])
def test_a_pipe_has_every_frame(capfdbinary: pytest.CaptureFixture[bytes], codec: str, alpha: bool) -> None:
    stream(choose_stream("-", codec, alpha), (0, 1, 4), alpha)
    data = capfdbinary.readouterr().out
    if codec == "raw" or alpha:
        frames = list(np.frombuffer(data, np.uint8).reshape(-1, *SIZE, 4 if alpha else 3))
        near = 0
    else:
        with av.open(io.BytesIO(data)) as read:
            assert read.streams.video[0].average_rate == RATE
            frames, near = [frame.to_ndarray(format="rgb24") for frame in read.decode(video=0)], 12
    assert len(frames) == 5, "the frame before stands for each that was left out"
    for frame, shown in zip(frames, (0, 1, 1, 1, 4), strict=True):
        assert np.median(np.abs(frame[..., :3].astype(int) - picture(shown))) <= near
        assert np.abs(frame[8:-8, 4:12, :3].astype(int) - picture(shown)[8:-8, 4:12]).mean() <= near
    assert not alpha or (frames[0][..., 3] == 200).all()


@pytest.mark.parametrize("codec", ["auto", "h265"])
def test_the_network_gets_what_is_written(codec: str) -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def receive() -> None:
            with server.accept()[0] as connection:
                while data := connection.recv(65536):
                    received.extend(data)

        listening = threading.Thread(target=receive)
        listening.start()
        stream(choose_stream(f"tcp://127.0.0.1:{server.getsockname()[1]}", codec, False), tuple(range(6)))
        listening.join(20)
    with av.open(io.BytesIO(bytes(received)), format="mpegts") as read:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in read.decode(video=0)]
    assert len(frames) == 6
    assert all(np.abs(frame - picture(index)).mean() < 8 for index, frame in enumerate(frames))


def test_nobody_there_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SaveError, match=rf"cannot write tcp://127\.0\.0\.1:{port} \(Connection refused\)"):
        stream(choose_stream(f"tcp://127.0.0.1:{port}", "auto", False), (0,))


@pytest.mark.parametrize("name", ["camera", "/dev/video10"])
def test_a_virtual_camera_shows_the_pictures(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    sent: list[np.ndarray] = []
    opened: list[tuple[object, ...]] = []

    def camera(width: int, height: int, fps: float, device: str | None) -> SimpleNamespace:
        opened.append((width, height, fps, device))
        return SimpleNamespace(send=sent.append, close=lambda: opened.append(("closed",)))

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=camera))
    stream(choose_stream(name, "auto", False), (0, 2))
    assert opened == [(64, 48, 25.0, None if name == "camera" else name), ("closed",)]
    assert [np.array_equal(one, picture(index)) for one, index in zip(sent, (0, 2), strict=True)] == [True, True]


def test_a_camera_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def camera(*values: object, **named: object) -> None:
        raise RuntimeError("'v4l2loopback' backend: No v4l2 loopback device found\nat /dev/video[0-9]+")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=camera))
    with pytest.raises(SaveError, match=r"out=camera cannot be opened \(.*\): load v4l2loopback") as found:
        stream(choose_stream("camera", "auto", False), (0,))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("out", "codec", "alpha", "speed", "line"),
    [
        ("-", "h264", False, "auto", "codec=h264 does not go through a pipe"),
        ("-", "y4m", True, "auto", "codec=y4m does not go through a pipe"),
        ("-", "auto", False, "slow", "speed=slow is for files and the network"),
        ("camera", "h264", False, "auto", "codec=h264 is for files and the network"),
        ("camera", "auto", True, "auto", "output=rgba does not fit into camera"),
        ("rtmp://a/b", "vp9", False, "auto", "codec=vp9 does not go through the network"),
        ("rtmp://a/b", "auto", True, "auto", "output=rgba does not fit into rtmp://a/b"),
        ("rtmp://a/b", "auto", False, "swift", "speed=swift is unknown"),
        ("gopher://a/b", "auto", False, "auto", "out=gopher://a/b is an address that is not known: use rtmp://"),
    ],
)
def test_what_does_not_fit_is_refused(out: str, codec: str, alpha: bool, speed: str, line: str) -> None:
    assert is_stream(out)
    with pytest.raises(ConfigError, match=line):
        choose_stream(out, codec, alpha, speed)


def test_files_with_such_names_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camera").mkdir()
    assert not any(map(is_stream, ("camera", "12:30:00.mp4", "a/b.mp4", "C:/a.mp4", "/dev/video", "--", "film")))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("input=rtsp://127.0.0.1:9/a", "out=a.mp4"), "input=rtsp://127.0.0.1:9/a is on the network"),
        (("input=IN", "out=srt://127.0.0.1:9"), "out=srt://127.0.0.1:9 is on the network, which is not used unless"),
        (("input=IN", "out=a.mp4", "drop=early"), "drop=early is unknown: use none or late"),
        (("input=gopher://a", "out=a.mp4", "allow_network=true"), "input=gopher://a is an address that is not known"),
        (("input=IN", "out=-", "codec=prores"), "codec=prores does not go through a pipe"),
    ],
)
def test_the_command_refuses_in_one_line(
    workplace: Workplace, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    film = encode(tmp_path / "in.mp4", count=2)
    done: Done = workplace.run("matte", *(each.replace("IN", str(film)) for each in arguments))
    assert line in done.line()


def test_from_pipe_to_pipe(workplace: Workplace, tmp_path: Path) -> None:
    """What a player would show: composed in a process of its own, read from one pipe and written to another."""
    film = encode(tmp_path / "in.mkv", count=5, sound="aac")
    run = "import sys; from ptq4vm.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "matte", "input=-", "out=-", "output=alpha", "drop=none"]
    with film.open("rb") as source:
        done = subprocess.run(
            [*command, f"weights={workplace.weights}"], stdin=source, capture_output=True, check=False, env=os.environ
        )
    assert done.returncode == 0, done.stderr.decode()
    with av.open(io.BytesIO(done.stdout)) as read:
        assert len(list(read.decode(video=0))) == 5 and read.format.name == "yuv4mpegpipe"
    told = done.stderr.decode()
    assert "0 frames dropped; latency p50 " in told and "out=- carries no sound: it is left out" in told


def test_a_paced_film_takes_its_own_time(tmp_path: Path) -> None:
    film = encode(tmp_path / "in.mp4", count=6, rate=Fraction(20))
    reader = PacedReader(open_input(str(film)))
    out = tmp_path / "out.mp4"
    with open_video(out, reader.info, reader.info.size, CODECS["h264"]) as writer:
        outcome = matte_video(reader, [BrightEngine()], composer("alpha", Colour((0, 0, 0))), writer)
    reader.close()
    assert outcome.busy["decode"] >= 5 / 20 - 0.02 and len(decode(out)[0]) == 6 and outcome.dropped == 0
