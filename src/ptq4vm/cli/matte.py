"""``ptq4vm matte``: matte a video, images or a camera, and write alpha, foreground, RGBA or a composite."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ptq4vm.cli.app import one_line
from ptq4vm.cli.engines import Engines, load_engines
from ptq4vm.cli.values import parse_values
from ptq4vm.errors import ConfigError, DataError, PTQ4VMError
from ptq4vm.media.frames import Frame, Picture, Reader
from ptq4vm.media.readers import open_input
from ptq4vm.system.allocator import keep_freed_memory
from ptq4vm.video.composing import (
    OUTPUTS,
    Background,
    Colour,
    Compose,
    Pictures,
    comparison,
    comparison_size,
    composer,
    parse_colour,
)
from ptq4vm.video.destinations import choose_target
from ptq4vm.video.loop import Outcome, matte_video
from ptq4vm.video.scenes import SceneCuts

USAGE = """usage: ptq4vm matte input=PATH out=PATH [KEY=VALUE...]

  input             video file, image, folder of images, or number of a camera
  out               .mp4 .mov .mkv .webm; an image for an image; anything without a suffix: a folder of PNG files
  checkpoint=fp32   fp32, a run folder, or an exported FILE.onnx or FILE.xml
  engine=auto       auto, pytorch, onnx, openvino
  output=composite  composite, alpha, foreground, rgba (.mov: ProRes 4444, .webm and .mkv: VP9, folder: PNG)
  background=green  behind a composite: green, black, white, grey, blue, '#rrggbb', an image or a video
  codec=auto        auto, h264, h265, vp9, prores
  downsample_ratio=auto  size at which the network runs; auto brings the longer side to 512
  compare=false     input, FP32 alpha, quantized alpha and difference side by side, in place of output
  scene_cut=false   forget what was seen where a scene begins
  frames=null       stop after so many
  fps=30            frames per second of a video made from images
  overwrite=false   replace what is there
  model=rvm_mobilenetv3, weights=null   the float network, and a file with its weights
"""


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
    downsample_ratio: float | None = None
    compare: bool = False
    scene_cut: bool = False
    frames: int | None = None
    fps: float = 30.0
    overwrite: bool = False
    model: str = "rvm_mobilenetv3"
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise ConfigError(f"output={self.output} is unknown: use one of {', '.join(OUTPUTS)}")
        if self.frames is not None and self.frames < 1:
            raise ConfigError(f"frames={self.frames} is none: use 1 or more")
        if not 0 < self.fps <= 1000:
            raise ConfigError(f"fps={self.fps:g} is out of range: use above 0 up to 1000")
        if self.downsample_ratio is not None and not 0 < self.downsample_ratio <= 1:
            raise ConfigError(f"downsample_ratio={self.downsample_ratio:g}: use auto, or above 0 up to 1")
        if self.compare and self.checkpoint == "fp32":
            raise ConfigError("compare=true compares a quantized network with the float one: give checkpoint=RUN_DIR")


def main(arguments: Sequence[str]) -> int:
    """Matte and print where it went; 1 after an error, 130 after an interruption (what was matted is kept)."""
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    console = Console(stderr=True)
    with _warnings(console):
        try:
            keep_freed_memory()
            options = parse_values(MatteOptions, arguments, missing="PATH")
            with _stopping() as stop:
                began = time.monotonic()
                outcome = matte(options, stop, console)
        except PTQ4VMError as error:
            sys.stderr.write(f"ptq4vm matte: {one_line(error)}\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("\nptq4vm matte: interrupted twice; an unfinished video was not kept\n")
            return 130
    if outcome.error is not None:
        kept = f"{outcome.seen} frames before it are in {options.out}"
        sys.stderr.write(f"ptq4vm matte: {one_line(outcome.error)}; {kept}\n")
        return 1
    if outcome.stopped:
        sys.stderr.write(f"ptq4vm matte: interrupted after {outcome.seen} frames, which are in {options.out}\n")
        return 130
    seconds = max(time.monotonic() - began, 1e-9)
    sys.stderr.write(f"{outcome.seen} frames in {seconds:.1f} s ({outcome.seen / seconds:.1f} a second)\n")
    sys.stdout.write(f"{options.out}\n")
    return 0


def matte(options: MatteOptions, stop: threading.Event, console: Console) -> Outcome:
    """Check everything that can be wrong before the network is loaded, then matte."""
    with contextlib.closing(open_input(options.input, Fraction(options.fps).limit_denominator(1001))) as reader:
        target = choose_target(
            Path(options.out),
            reader,
            alpha=options.output == "rgba" and not options.compare,
            codec=options.codec,
            overwrite=options.overwrite,
            identity=_identity(options),
            source=Path(options.input),
        )
        background = _background(options.background)
        engines = load_engines(
            options.checkpoint,
            options.engine,
            options.model,
            options.weights,
            options.downsample_ratio,
            compare=options.compare,
        )
        compose, size = _compose(options, background, engines, reader)
        with _progress(console, reader, options.frames) as on_frame:
            return target.fill(
                reader,
                size,
                lambda writer, start: matte_video(
                    reader,
                    engines.engines,
                    compose,
                    writer,
                    start=start,
                    end=options.frames,
                    cuts=SceneCuts() if options.scene_cut else None,
                    stop=stop,
                    on_frame=on_frame,
                ),
            )


def _compose(
    options: MatteOptions, background: Background, engines: Engines, reader: Reader
) -> tuple[Compose, tuple[int, int]]:
    """What is made of each frame, and its ``(H, W)``."""
    size = reader.info.size
    if options.compare:
        return comparison(engines.label), comparison_size(size)
    return composer(options.output, background), size


def _background(text: str) -> Background:
    """A colour, or the pictures of a file. Raises :class:`ConfigError`, :class:`DataError`."""
    rgb = parse_colour(text)
    if rgb is not None:
        return Colour(rgb)
    if not Path(text).exists():
        raise DataError(f"background={text} is no file, nor a colour: use green, black, white, grey, blue or '#rrggbb'")
    with contextlib.closing(open_input(text)) as reader:
        single = reader.info.count == 1

    def pictures() -> Iterator[Picture]:
        with contextlib.closing(open_input(text)) as again:
            for item in again.read():
                if isinstance(item, Frame):
                    yield item.image

    return Pictures(pictures, single)


def _identity(options: MatteOptions) -> dict[str, str]:
    """What decides the pictures of a folder: names, and when the files behind them were written."""
    keys = ("output", "background", "downsample_ratio", "compare", "scene_cut", "model", "engine")
    identity = {key: str(getattr(options, key)) for key in keys}
    for key in ("input", "checkpoint", "weights"):
        path = Path(str(getattr(options, key)))
        file = path / "model.safetensors" if (path / "model.safetensors").is_file() else path
        identity[key] = f"{path.resolve()} {file.stat().st_mtime_ns}" if file.is_file() else str(path)
    return identity


@contextlib.contextmanager
def _progress(console: Console, reader: Reader, end: int | None) -> Iterator[Callable[[int], None]]:
    """A bar with frames a second and the time left, where somebody looks."""
    counts = [n for n in (reader.info.count, end) if n is not None]
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("matte", total=min(counts, default=None), fps="")

        def on_frame(done: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, fps="" if speed is None else f"{speed:.1f} fps")

        yield on_frame


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


class _Lines(logging.Handler):
    """Warnings as lines, above a progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self._console.print(
            f"ptq4vm matte: {record.getMessage()}", markup=False, highlight=False, soft_wrap=True, emoji=False
        )


@contextlib.contextmanager
def _warnings(console: Console) -> Iterator[None]:
    handler = _Lines(console)
    logger = logging.getLogger("ptq4vm")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
