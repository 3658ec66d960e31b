"""Matting a video, images or a camera into a file or a folder."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ptq4vm.api.opening import FLOAT, Engines, open_engines
from ptq4vm.api.wishes import Wishes
from ptq4vm.engines.anysize import AUTO
from ptq4vm.errors import ConfigError, DataError, one_line
from ptq4vm.media.codecs import VIDEO_SUFFIXES
from ptq4vm.media.frames import Frame, StreamInfo
from ptq4vm.media.readers import PacedReader, open_input
from ptq4vm.media.streams import check_network, choose_stream, is_stream
from ptq4vm.quant.names import TENSORS
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
from ptq4vm.video.destinations import Destination, StreamDestination, choose_destination
from ptq4vm.video.loop import Busy, matte_video
from ptq4vm.video.scenes import SceneCuts

OnFrame = Callable[[int, int | None], None]
"""Called after each frame with how many have come so far, and how many there are where that is known."""


@dataclass(frozen=True)
class MattingResult:
    """How matting a video ended.

    Attributes:
        out: The file or folder that was written.
        frames: How many frames went through the network.
        seconds: What all of it took, opening the network included.
        stopped: Whether it was asked to stop before the end; what had been matted is in ``out``.
        busy: Seconds for which each step worked rather than waited: ``decode``, ``network``, ``compose``, ``encode``;
            the network, with what is between it and the frame, has a thread to itself, so has decoding, and the other
            two share one.
        dropped: Frames that were left out since they were late (``drop="late"``).
        latency: Milliseconds from when a frame came to when it was written: of half of the frames, and of 95 % of them,
            at most.
    """

    out: Path
    frames: int
    seconds: float
    stopped: bool
    busy: Mapping[str, float] = field(default_factory=dict)
    dropped: int = 0
    latency: tuple[int, int] = (0, 0)


def matte(
    input: str | Path,
    out: str | Path,
    *,
    checkpoint: str | Path = FLOAT,
    engine: str = "auto",
    output: str = "composite",
    background: str | Path = "green",
    codec: str = "auto",
    speed: str = "auto",
    downsample_ratio: float | None = None,
    size: tuple[int, int] | str = AUTO,
    compare: bool = False,
    scene_cut: bool = False,
    frames: int | None = None,
    fps: float = 30.0,
    subject: str | None = None,
    mask: str | Path | None = None,
    smooth: float = 0.0,
    decontaminate: bool = False,
    every: int = 1,
    drop: str = "none",
    pace: bool = False,
    allow_network: bool = False,
    overwrite: bool = False,
    model: str = "rvm_mobilenetv3",
    weights: str | Path | None = None,
    stop: threading.Event | None = None,
    on_frame: OnFrame | None = None,
    busy: Busy | None = None,
) -> MattingResult:
    """Matte a video, images or a camera. Everything that can be wrong is looked at before a network is loaded.

    Args:
        input: A video file, an image, a folder of images, the number of a camera, ``-`` for the standard input (any
            container that can be read from its beginning on, such as y4m), or an address (``rtsp://...``).
        out: A video (``.mp4``, ``.mov``, ``.mkv``, ``.webm``), an image for an image, or, without a suffix, a folder of
            PNG files, which is gone on with where an earlier call was interrupted; ``-`` for the standard output,
            ``camera`` or ``/dev/videoN`` for a virtual camera, or an address (``rtmp://``, ``srt://``, ``rtsp://``,
            ``udp://``, ``tcp://``).
        checkpoint: ``fp32``, a run folder, or an exported file (``.onnx``, ``.xml``, ...).
        engine: ``pytorch``, ``onnx``, ``openvino``, ``litert``, ``bits``, or ``auto``: by the checkpoint.
        output: ``composite``, ``alpha``, ``foreground`` or ``rgba``.
        background: What is behind a composite: ``green``, ``black``, ``white``, ``grey``, ``blue``, ``#rrggbb``, or the
            path of an image or a video.
        codec: ``h264``, ``h265``, ``vp9``, ``prores``, or ``auto``: by the suffix. The standard output takes ``y4m``
            or ``raw`` (rgb24, or rgba with ``output="rgba"``).
        speed: How much time the encoder takes for each frame, by its own presets from ``slow`` to ``ultrafast``;
            ``auto`` is ``fast``. Its aim for quality stays, so that faster means larger files.
        downsample_ratio: Fraction of the frames' size at which the network runs, in (0, 1]. By default the longer side
            is brought to 512 pixels. An exported file has its own, and takes no other.
        size: ``(H, W)`` at which an exported file runs; ``auto`` for one of the frames' aspect, at about the area for
            which it was exported, ``file`` for just the size for which it was exported.
        compare: Whether to write input, FP32 alpha, quantized alpha and their difference side by side, in place of
            ``output``.
        scene_cut: Whether to forget what was seen where a scene begins.
        frames: How many at most; all by default.
        fps: Frames per second of a video made from images, in (0, 1000].
        subject: ``x,y`` of the one subject that is kept of several, in the first frame: pixels, or shares in [0, 1]. It
            is followed as the connected part of alpha that it is.
        mask: A picture of that subject in the first frame, in place of ``subject``.
        smooth: Against flicker: the share, in [0, 1), that alpha's rim takes of the alpha before along the optical
            flow.
        decontaminate: Whether the foreground's colours at the rim are estimated anew, free of the old background's.
        every: The network sees every n-th frame, 1 to 30, and where much has changed; mattes of those between are moved
            along the optical flow.
        drop: ``late`` leaves a frame out that still waits when the next one comes, so that what is written stays
            close to what comes; ``none`` keeps them all.
        pace: Whether frames of a file are read at the speed at which they are to be played.
        allow_network: Whether ``input`` and ``out`` may be addresses.
        overwrite: Whether what is there may be replaced.
        model: Name of the float network in ``conf/model``.
        weights: A file with its weights; the usual places when not given.
        stop: Once it is set, what has been matted is written and the rest is not begun.
        on_frame: Called after each frame, with how many have come and how many there are.
        busy: Counts for how long each step works, for who looks meanwhile.

    Returns:
        Where it went, how many frames there were, and seconds.

    Raises:
        ConfigError: A value is unknown, out of range or does not suit the others.
        DataError: The input or the background cannot be read. Where frames came before, they are kept, and the message
            says so; this holds for every error that comes after the first frame.
        SaveError: ``out`` cannot be written.
        CheckpointError: The run folder is missing or damaged.
        ExportError: The exported file is missing, damaged or not one of ours.
        WeightsError: The float network's weights cannot be found.
    """
    _check(output, frames, fps, downsample_ratio, compare and checkpoint == FLOAT)
    wishes = Wishes(subject, mask, smooth, decontaminate, every)
    if drop not in ("none", "late"):
        raise ConfigError(f"drop={drop} is unknown: use none or late")
    for key, text in (("input", str(input)), ("out", str(out))):
        check_network(key, text, allow_network)
    began = time.monotonic()
    identity = {
        "output": output,
        "background": str(background),
        "downsample_ratio": str(downsample_ratio),
        "compare": str(compare),
        "scene_cut": str(scene_cut),
        "model": model,
        "engine": engine,
        **wishes.identity,
        **({} if size == AUTO else {"size": str(size)}),
        **_sources(input=input, checkpoint=checkpoint, weights=weights),
    }
    # pictures have 8 bits, and so have comparisons
    deep = Path(out).suffix.lower() in VIDEO_SUFFIXES and not Path(out).is_dir() and not compare
    with contextlib.closing(open_input(str(input), Fraction(fps).limit_denominator(1001), deep)) as reader:
        reader.info = reader.info.until(frames)
        paced = PacedReader(reader) if pace else reader
        alpha = output == "rgba" and not compare
        if is_stream(str(out)):
            destination: Destination = StreamDestination(choose_stream(str(out), codec, alpha, speed), alpha)
        else:
            destination = choose_destination(
                Path(out),
                reader,
                alpha=alpha,
                codec=codec,
                speed=speed,
                overwrite=overwrite,
                identity=identity,
                source=Path(input),
            )
        each = [replace(wishes, every=1), wishes] if compare else [wishes]  # the float network sees every frame
        refiners = [own.refiners(reader.info.size) for own in each]
        behind = _background(str(background), reader.info.rate)
        engines = open_engines(checkpoint, engine, model, weights, downsample_ratio, compare=compare, size=size)
        pairs = zip(each, engines.engines, refiners, strict=True)
        refined = [own.engine(engine, its) for own, engine, its in pairs]
        compose, written = _compose(output, behind, engines, compare, reader.info.size)
        outcome = destination.fill(
            reader,
            written,
            lambda writer, start: matte_video(
                paced,
                refined,
                compose,
                writer,
                start=start,
                end=frames,
                cuts=SceneCuts() if scene_cut else None,
                stop=stop,
                on_frame=_counting(reader.info, frames, on_frame),
                late=drop == "late",
                busy=busy,
            ),
        )
    if outcome.error is not None:
        kept = f"{outcome.seen} frames before it are in {out}"
        raise type(outcome.error)(f"{one_line(outcome.error)}; {kept}") from outcome.error
    latency = (outcome.latency.percentile(0.5), outcome.latency.percentile(0.95))
    return MattingResult(
        *(Path(out), outcome.seen, time.monotonic() - began, outcome.stopped, outcome.busy, outcome.dropped, latency)
    )


def _check(output: str, frames: int | None, fps: float, downsample_ratio: float | None, alike: bool) -> None:
    """Refuse values that are out of range. Raises :class:`ConfigError`."""
    if output not in OUTPUTS:
        raise ConfigError(f"output={output} is unknown: use one of {', '.join(OUTPUTS)}")
    if frames is not None and frames < 1:
        raise ConfigError(f"frames={frames} is none: use 1 or more")
    if not 0 < fps <= 1000:
        raise ConfigError(f"fps={fps:g} is out of range: use above 0 up to 1000")
    if downsample_ratio is not None and not 0 < downsample_ratio <= 1:
        raise ConfigError(f"downsample_ratio={downsample_ratio:g}: use auto, or above 0 up to 1")
    if alike:
        raise ConfigError("compare=true compares a quantized network with the float one: give checkpoint=RUN_DIR")


def _sources(**paths: str | Path | None) -> Mapping[str, str]:
    """Names, and when the files behind them were written: what else decides the pictures of a folder."""
    found = {}
    for key, value in paths.items():
        path = Path(str(value))
        file = path / TENSORS if (path / TENSORS).is_file() else path
        found[key] = f"{path.resolve()} {file.stat().st_mtime_ns}" if file.is_file() else str(path)
    return found


def _background(text: str, rate: Fraction) -> Background:
    """A colour, or the pictures of a file (images at ``rate``). Raises :class:`ConfigError`, :class:`DataError`."""
    rgb = parse_colour(text)
    if rgb is not None:
        return Colour(rgb)
    if not Path(text).exists():
        raise DataError(f"background={text} is no file, nor a colour: use green, black, white, red, '#rrggbb', ...")
    with contextlib.closing(open_input(text, rate)) as reader:
        own = reader.info.rate

    def pictures() -> Iterator[Frame]:
        with contextlib.closing(open_input(text, rate)) as again:
            yield from (item for item in again.read() if isinstance(item, Frame))

    return Pictures(pictures, own)


def _compose(
    output: str, background: Background, engines: Engines, compare: bool, size: tuple[int, int]
) -> tuple[Compose, tuple[int, int]]:
    """What is made of each frame, and its ``(H, W)``."""
    if compare:
        return comparison(engines.label), comparison_size(size)
    return composer(output, background), size


def _counting(info: StreamInfo, end: int | None, on_frame: OnFrame | None) -> Any:
    """What the loop calls with a frame's place: ``on_frame`` with the number of frames that there are as well."""
    if on_frame is None:
        return None
    total = min((n for n in (info.count, end) if n is not None), default=None)
    return lambda done: on_frame(done, total)
