"""``ptq4vm export``: write a quantized network as an integer graph (or the float one), and verify such a file."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

from ptq4vm import api
from ptq4vm.cli.frame import FAILED, Command
from ptq4vm.cli.values import KeyValues, parse_size

USAGE = """usage: ptq4vm export checkpoint=DIR target=onnx|openvino|litert out=FILE [KEY=VALUE...]
       ptq4vm export verify checkpoint=DIR file=FILE [frames=24] [clips=3] [clip=DIR] [threads=N]

  checkpoint          a run folder of `ptq4vm quantize`, or fp32: the float network, to compare with
  target              onnx (out=FILE.onnx), openvino (out=FILE.xml, with FILE.bin beside it), litert (out=FILE.tflite)
                      or, for binary networks, bits (out=FILE.bits)
  size=512x288        width x height of a frame
  dynamic=false       let the file take frames of any size
  downsample_ratio=1  fraction of the size at which the network runs, fixed in the file
  overwrite=false     replace what is there
  model=rvm_mobilenetv3, weights=null   of checkpoint=fp32

  file                an exported file
  frames=24           of each clip
  clips=3             the first evaluation clips of the run's own data (a drawn portrait where they are gone)
  clip                a folder with com/ and pha/ instead
  threads             CPU threads of the engine
  weights=null        of the float network, where its alphas are the clips' truth
"""


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


def export(options: ExportOptions) -> None:
    """Write the file and print its path."""
    values = {**asdict(options), "size": parse_size(options.size)}
    sys.stdout.write(f"{api.export(**values)}\n")


def verify(options: VerifyOptions) -> int:
    """Print how close the file is to its checkpoint; 1 where it is too far away."""
    parity = api.verify(**asdict(options))
    (sys.stdout if parity.passed else sys.stderr).write(f"ptq4vm export verify: {parity}\n")
    return 0 if parity.passed else FAILED


COMMANDS = (
    Command("export", KeyValues(ExportOptions, USAGE), export),
    Command("export verify", KeyValues(VerifyOptions, USAGE, alone=True), verify),
)
