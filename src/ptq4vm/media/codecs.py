"""Codecs of videos that are written, and what each can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import av

from ptq4vm.errors import ConfigError, one_line


@dataclass(frozen=True)
class Codec:
    """How a video is compressed.

    Attributes:
        encoder: FFmpeg's name for the encoder.
        opaque: Pixel format without alpha.
        alpha: Pixel format with alpha; ``None`` where it carries none.
        suffixes: What the names of files that can hold it end in, lower case.
        options: Options that the encoder is given.
        even: Whether width and height must be even.
        full_range: Whether it can say that codes reach from 0 to 255.
        aspect: Whether it can say that pixels are not square.
        deep: Pixel format without alpha and with more than 8 bits; ``None`` where there is none.
        speeds: Options for each of :data:`SPEEDS` that it knows.
    """

    encoder: str
    opaque: str
    alpha: str | None
    suffixes: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    even: bool = False
    full_range: bool = True
    aspect: bool = True
    deep: str | None = None
    speeds: Mapping[str, dict[str, str]] = field(default_factory=dict)

    def form(self, alpha: bool, depth: int) -> str:
        """The pixel format for a source of ``depth`` bits a channel."""
        if alpha and self.alpha is not None:
            return self.alpha
        return self.deep if depth > 8 and self.deep is not None else self.opaque

    def bits(self, alpha: bool, depth: int) -> int:
        """How many bits a channel it keeps of so many."""
        return min(depth, av.VideoFormat(self.form(alpha, depth)).components[0].bits)

    @property
    def bleeds(self) -> bool:
        """Whether colours where alpha is 0 get into those beside them: alpha with colours at half the resolution."""
        return self.alpha is not None and self.alpha.startswith("yuva420p")


SPEEDS = ("slow", "medium", "fast", "faster", "veryfast", "superfast", "ultrafast")
"""x264's and x265's names. The aim for quality stays the same; faster encoders need more bits for it."""
_PRESETS = {name: {"preset": name} for name in SPEEDS}

_FILMS = (".mp4", ".mov", ".mkv")

CODECS = {
    "h264": Codec(
        "libx264",
        "yuv420p",
        None,
        _FILMS,
        {"crf": "17", "preset": "veryfast"},
        even=True,
        speeds=_PRESETS,
    ),
    "h265": Codec(
        "libx265",
        "yuv420p",
        None,
        _FILMS,
        {"crf": "20", "preset": "fast", "x265-params": "log-level=none"},
        even=True,
        deep="yuv420p10le",
        speeds=_PRESETS,
    ),
    "vp9": Codec(
        "libvpx-vp9",
        "yuv420p",
        "yuva420p",
        (".webm", ".mkv"),
        {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"},
        aspect=False,
        speeds={name: {"cpu-used": str(used)} for name, used in zip(SPEEDS, (1, 2, 4, 5, 6, 7, 8), strict=True)},
    ),
    "prores": Codec(
        "prores_ks",
        "yuv444p10le",
        "yuva444p10le",
        (".mov",),
        {"profile": "4444", "alpha_bits": "16"},
        full_range=False,
        deep="yuv444p10le",
    ),
}
_NVENC = {name: {"preset": f"p{7 - number}"} for number, name in enumerate(SPEEDS)}
_QSV = {name: {"preset": name if name in SPEEDS[:5] else "veryfast"} for name in SPEEDS}
HARDWARE = {
    f"{name}_{kind}": Codec(f"{encoder}_{kind}", form, None, _FILMS, options, even=True, speeds=speeds)
    for name, encoder in (("h264", "h264"), ("h265", "hevc"))
    for kind, form, options, speeds in (
        ("nvenc", "yuv420p", {"rc": "vbr", "cq": "19", "b": "0", "preset": "p4"}, _NVENC),
        ("qsv", "nv12", {"global_quality": "20", "preset": "fast"}, _QSV),
        ("videotoolbox", "yuv420p", {"q": "65"}, {}),
    )
}
"""Encoders of graphics cards (NVIDIA, Intel) and of Apple's computers: never chosen by themselves."""
_DEFAULT = {".mp4": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9"}
_DEFAULT_ALPHA = {".mov": "prores", ".mkv": "vp9", ".webm": "vp9"}
VIDEO_SUFFIXES = tuple(_DEFAULT)


def choose_codec(suffix: str, name: str, alpha: bool, speed: str = "auto") -> Codec:
    """Choose the codec of a video file, and check that the file can hold it.

    Args:
        suffix: Suffix of the file's name, in lower case, such as ``.mp4``.
        name: A key of :data:`CODECS`, or ``auto``.
        alpha: Whether alpha is to be carried.
        speed: One of :data:`SPEEDS`, or ``auto`` for the codec's own choice.

    Raises:
        ConfigError: There is no such codec, it does not go into such a file, it carries no alpha, has no such speed, or
            needs a device that does not answer.
    """
    if suffix not in VIDEO_SUFFIXES:
        raise ConfigError(f"out=*{suffix} is no video that can be written: use {', '.join(VIDEO_SUFFIXES)} or a folder")
    carriers = ".mov (ProRes 4444), .webm or .mkv (VP9), or a folder (PNG)"
    if name == "auto":
        if alpha and suffix not in _DEFAULT_ALPHA:
            raise ConfigError(f"output=rgba does not fit into {suffix}: use {carriers}")
        name = (_DEFAULT_ALPHA if alpha else _DEFAULT)[suffix]
    if name not in CODECS and name not in HARDWARE:
        raise ConfigError(f"codec={name} is unknown: use auto, {', '.join((*CODECS, *HARDWARE))}")
    codec = CODECS.get(name) or HARDWARE[name]
    if suffix not in codec.suffixes:
        raise ConfigError(f"codec={name} does not fit into {suffix}: use {', '.join(codec.suffixes)}")
    if alpha and codec.alpha is None:
        raise ConfigError(f"codec={name} carries no alpha: use {carriers}")
    if name in HARDWARE:
        _check_is_there(name, codec)
    if speed == "auto":
        return codec
    if speed not in codec.speeds:
        raise ConfigError(f"speed={speed} is unknown to codec={name}: use {', '.join(('auto', *codec.speeds))}")
    return replace(codec, options={**codec.options, **codec.speeds[speed]})


def _check_is_there(name: str, codec: Codec) -> None:
    """Open an encoder that needs a device. Raises :class:`ConfigError` where it cannot be opened."""
    try:
        context = av.CodecContext.create(codec.encoder, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = 256, 256, codec.opaque
        context.time_base, context.options = Fraction(1, 25), dict(codec.options)
        context.open()
    except (av.FFmpegError, OSError, ValueError) as error:
        said = one_line(error).rsplit("] ", 1)[-1]  # FFmpeg's own last words
        raise ConfigError(
            f"codec={name}: the encoder does not answer on this machine ({said}); use codec={name.split('_')[0]}"
        ) from error


def deeper(alpha: bool, depth: int, kept: int) -> str:
    """What keeps more than ``kept`` of ``depth`` bits a channel, as the end of a message; empty where nothing does."""
    found = [
        f"codec={name} ({', '.join(codec.suffixes)})"
        for name, codec in CODECS.items()
        if codec.bits(alpha, depth) > kept and (codec.alpha or not alpha)
    ]
    return f"; use {' or '.join(found)}" if found else ""
