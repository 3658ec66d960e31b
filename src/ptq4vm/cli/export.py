"""``ptq4vm export``: write a quantized network as an integer graph (or the float one), and verify such a file."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptq4vm.api import load_checkpoint, load_model
from ptq4vm.cli.app import one_line
from ptq4vm.cli.recorded import recorded_clips
from ptq4vm.cli.values import parse_values
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.errors import ConfigError, PTQ4VMError, SaveError
from ptq4vm.export.metadata import checkpoint_hash, describe, describe_float
from ptq4vm.export.target import TARGETS
from ptq4vm.export.trace import FrameShape
from ptq4vm.export.verify import Parity, moving_portrait, open_engine, verify
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.clips import fitted
from ptq4vm.pipeline.teacher import fingerprint, folded
from ptq4vm.quant.checkpoint import read_info
from ptq4vm.types import Clip, ClipSource
from ptq4vm.version import __version__

USAGE = """usage: ptq4vm export checkpoint=DIR target=onnx|openvino out=FILE [KEY=VALUE...]
       ptq4vm export verify checkpoint=DIR file=FILE [frames=24] [clips=3] [clip=DIR] [threads=N]

  checkpoint          a run folder of `ptq4vm quantize`, or fp32: the float network, to compare with
  target              onnx (out=FILE.onnx) or openvino (out=FILE.xml, with FILE.bin beside it)
  size=512x288        width x height of a frame
  dynamic=false       let the file take frames of any size
  downsample_ratio=1  fraction of the size at which the network runs, fixed in the file
  overwrite=false     replace what is there
  model=rvm_mobilenetv3, weights=null   of checkpoint=fp32

  file                an exported .onnx or .xml
  frames=24           of each clip
  clips=3             the first evaluation clips of the run's own data (a drawn portrait where they are gone)
  clip                a folder with com/ and pha/ instead
  threads             CPU threads of the engine
  weights=null        of the float network, where its alphas are the clips' truth
"""

FLOAT = "fp32"
ANY_SIZE = (288, 512)
"""``(H, W)`` of the drawn clip for a file that takes any size."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """Values of ``ptq4vm export``; see ``USAGE``."""

    checkpoint: str
    target: str
    out: str
    size: str = "512x288"
    dynamic: bool = False
    downsample_ratio: float = 1.0
    overwrite: bool = False
    model: str = "rvm_mobilenetv3"
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ConfigError(f"target={self.target} is unknown: use one of {', '.join(TARGETS.names())}")
        suffix = TARGETS[self.target].suffix
        if Path(self.out).suffix != suffix:
            raise ConfigError(f"out={self.out}: target={self.target} needs a name that ends in {suffix}")
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.size):
            raise ConfigError(f"size={self.size}: write WIDTHxHEIGHT, such as 512x288")

    @property
    def shape(self) -> FrameShape:
        """What the graph takes."""
        width, height = (int(side) for side in self.size.split("x"))
        return FrameShape(height, width, self.dynamic, self.downsample_ratio)


@dataclass(frozen=True)
class VerifyOptions:
    """Values of ``ptq4vm export verify``; see ``USAGE``."""

    checkpoint: str
    file: str
    frames: int = 24
    clips: int = 3
    clip: str | None = None
    threads: int | None = None
    model: str = "rvm_mobilenetv3"
    weights: str | None = None

    def __post_init__(self) -> None:
        for key, count in (("frames", self.frames), ("clips", self.clips)):
            if count < 1:
                raise ConfigError(f"{key}={count} is none: use 1 or more")


def main(arguments: Sequence[str]) -> int:
    """Export and print the path, or verify and print the result; 1 after an error or where verification fails."""
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    verifying = arguments[0] == "verify"
    name = "export verify" if verifying else "export"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"ptq4vm {name}: %(message)s"))
    logger = logging.getLogger("ptq4vm")
    logger.addHandler(handler)
    try:
        if not verifying:
            sys.stdout.write(f"{export(parse_values(ExportOptions, arguments))}\n")
            return 0
        parity = check(parse_values(VerifyOptions, arguments[1:]))
    except PTQ4VMError as error:
        sys.stderr.write(f"ptq4vm {name}: {one_line(error)}\n")
        return 1
    finally:
        logger.removeHandler(handler)
    (sys.stdout if parity.passed else sys.stderr).write(f"ptq4vm {name}: {parity}\n")
    return 0 if parity.passed else 1


def export(options: ExportOptions) -> Path:
    """Write the file. Raises :class:`PTQ4VMError`."""
    shape, out, target = options.shape, Path(options.out), TARGETS[options.target]()
    if not options.overwrite:
        for path in target.files(out):
            if path.exists():
                raise SaveError(f"{path} is there already: add overwrite=true or choose another name")
    network = _network(options)
    if options.checkpoint == FLOAT:
        metadata = describe_float(options.model, fingerprint(network, 1.0), shape, __version__)
    else:
        folder = Path(options.checkpoint)
        metadata = describe(folder, read_info(folder), network, shape, __version__, target)
    target.write(network, out, shape, metadata)
    return out


def check(options: VerifyOptions) -> Parity:
    """Verify the file. Raises :class:`PTQ4VMError`."""
    file = Path(options.file)
    engine = open_engine(file, options.threads)
    network = _network(options)
    is_float = options.checkpoint == FLOAT
    wanted = fingerprint(network, 1.0) if is_float else checkpoint_hash(Path(options.checkpoint))
    if engine.metadata.get("checkpoint") != wanted:
        log.warning("%s does not say that it was exported from %s", file, options.checkpoint)
    clips = [fitted(clip, engine.frame_size) for clip in _clips(options, engine.frame_size or ANY_SIZE)]
    return verify(network, engine, clips)


def _network(options: ExportOptions | VerifyOptions) -> MattingNetwork:
    """The quantized network of a run folder, or the float one with its batch norms folded."""
    if options.checkpoint != FLOAT:
        return load_checkpoint(options.checkpoint)
    model = load_model(options.model, options.weights)
    return folded(model.network, model.partition)


def _clips(options: VerifyOptions, size: tuple[int, int]) -> list[Clip]:
    """What was asked for; else the run's own evaluation clips, which its network knows; else a drawn one."""
    sources: Sequence[ClipSource] = ()
    if options.clip is not None:
        sources = [FolderClip.from_folder(Path(options.clip))]
    elif options.checkpoint != FLOAT:
        try:
            sources = recorded_clips(options.checkpoint, options.weights)[: options.clips]
        except PTQ4VMError as error:
            log.warning("give clip=DIR: a drawn portrait says little of a trained network (%s)", one_line(error))
    if not sources:  # or a float network, which any picture will do for
        return [moving_portrait(size, options.frames)]
    return [source.read(0, min(options.frames, source.num_frames)) for source in sources]
