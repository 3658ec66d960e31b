"""``ptq4vm matte``: matte a video, images or a camera, and write alpha, foreground, RGBA or a composite."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ptq4vm import api
from ptq4vm.cli.frame import FAILED, INTERRUPTED, Command, tell
from ptq4vm.cli.values import KeyValues, parse_size
from ptq4vm.media.streams import PIPE, is_stream
from ptq4vm.video.loop import Busy

USAGE = """usage: ptq4vm matte input=PATH out=PATH [KEY=VALUE...]

  input             video file, image, folder of images, number of a camera, - (standard input), or an address;
                    a folder of videos, or several with commas: each goes into the folder out
  out               .mp4 .mov .mkv .webm; an image for an image; anything without a suffix: a folder of PNG files;
                    - (standard output), camera or /dev/videoN (a virtual camera), rtmp:// srt:// rtsp:// udp:// tcp://
  checkpoint=fp32   fp32, a run folder, or an exported FILE.onnx, FILE.xml, ...
  engine=auto       auto, pytorch, onnx, openvino, litert, bits
  output=composite  composite, alpha, foreground, rgba (.mov: ProRes 4444, .webm and .mkv: VP9, folder: PNG)
  background=green  behind a composite: green, black, white, grey, blue, '#rrggbb', an image or a video
  codec=auto        auto, h264, h265, vp9, prores, h264_nvenc and others; y4m or raw with out=-
  speed=auto        the encoder's preset, slow to ultrafast: faster makes larger files
  downsample_ratio=auto  size at which the network runs; auto brings the longer side to 512
  size=auto         what an exported file runs at: auto (the frames' aspect, about its area), file (its own), or 288x512
  compare=false     input, FP32 alpha, quantized alpha and difference side by side, in place of output
  subject=null      x,y of the one subject that is kept, in the first frame; mask=PICTURE of it does as well
  smooth=0          against flicker: share of the alpha before that the rim takes, such as 0.3
  decontaminate=false  free colours at the rim of the old background
  every=1           2: the network sees every second frame; mattes of those between are moved along the optical flow
  scene_cut=false   forget what was seen where a scene begins
  frames=null       stop after so many
  fps=30            frames per second of a video made from images
  drop=none         late: leave out what still waits when the next frame comes
  pace=false        read a file at the speed at which it is to be played
  allow_network=false  whether input and out may be addresses
  overwrite=false   replace what is there
  model=rvm_mobilenetv3, weights=null   the float network, and a file with its weights
"""


_LOOK = 1.0  # seconds over which the step that limits is looked for
_STEPS = {"decode": "decoding", "network": "the network", "compose": "filter and composing", "encode": "encoding"}


@dataclass(frozen=True)
class MatteOptions:
    """Values of the command; see ``USAGE``."""

    input: str
    out: str
    checkpoint: str = "fp32"
    engine: str = "auto"
    output: str = "composite"
    background: str = "green"
    codec: str = "auto"
    speed: str = "auto"
    downsample_ratio: float | None = None
    size: str = "auto"
    compare: bool = False
    scene_cut: bool = False
    frames: int | None = None
    fps: float = 30.0
    subject: str | None = None
    mask: str | None = None
    smooth: float = 0.0
    decontaminate: bool = False
    every: int = 1
    drop: str = "none"
    pace: bool = False
    allow_network: bool = False
    overwrite: bool = False
    model: str = "rvm_mobilenetv3"
    weights: str | None = None


def matte(options: MatteOptions) -> int:
    """Matte and print where it went; 130 after an interruption (what was matted is kept)."""
    inputs = api.batch_of(options.input)
    if inputs:
        return _matte_all(options, inputs)
    try:
        with _stopping() as stop, _progress() as (on_frame, busy):
            result = api.matte(**_values(options), stop=stop, on_frame=on_frame, busy=busy)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted twice; an unfinished video was not kept") from None
    if result.stopped:
        tell("matte", f"interrupted after {result.frames} frames, which are in {options.out}")
        return INTERRUPTED
    seconds = max(result.seconds, 1e-9)
    each = ", ".join(f"{step} {spent / seconds:.0%}" for step, spent in result.busy.items())
    sys.stderr.write(f"{result.frames} frames in {seconds:.1f} s ({result.frames / seconds:.1f} a second; {each})\n")
    if options.pace or options.drop != "none" or is_stream(options.out):
        half, most = result.latency
        sys.stderr.write(f"{result.dropped} frames dropped; latency p50 {half} ms, p95 {most} ms\n")
    if options.out != PIPE:  # which has the frames
        sys.stdout.write(f"{options.out}\n")
    return 0


def _values(options: MatteOptions) -> dict[str, Any]:
    """What :func:`ptq4vm.matte` takes. Raises :class:`ConfigError`."""
    named = options.size in ("auto", "file")
    return {**asdict(options), "size": options.size if named else parse_size(options.size)}


def _matte_all(options: MatteOptions, inputs: Sequence[Path]) -> int:
    """Matte many and print what was made; 1 where one could not be."""
    values = {key: value for key, value in _values(options).items() if key not in ("input", "out")}
    with _stopping() as stop, _progress() as (on_frame, busy):
        done = api.matte_all(inputs, options.out, stop=stop, on_frame=on_frame, busy=busy, **values)
    said = f"{len(done.made)} of {len(inputs)} matted, {done.frames} frames in {done.seconds:.1f} s"
    there, failed = f"{len(done.there)} there already", f"{len(done.failed)} failed"
    sys.stderr.write(f"{said}; {there}; {failed}\n")
    sys.stdout.write("".join(f"{path}\n" for path in done.made))
    if done.stopped:
        tell("matte", "interrupted; the same command goes on from here")
        return INTERRUPTED
    return FAILED if done.failed else 0


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[int, int | None], None], Busy]]:
    """A bar with frames a second, the time left and the step that limits, where somebody looks."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[limit]}"),
    )
    busy, seconds, looked = Busy(), dict[str, float](), 0.0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("matte", total=None, fps="", limit="")

        def on_frame(done: int, total: int | None) -> None:
            nonlocal seconds, looked
            speed, now = progress.tasks[0].speed, time.monotonic()
            progress.update(task, completed=done, total=total, fps="" if speed is None else f"{speed:.1f} fps")
            if now - looked > _LOOK:
                step = busy.limiting(seconds)
                progress.update(task, limit=f"{_STEPS[step]} limits" if step else "")
                seconds, looked = dict(busy.seconds), now

        yield on_frame, busy


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: types.FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COMMANDS = (Command("matte", KeyValues(MatteOptions, USAGE, missing="PATH"), matte),)
