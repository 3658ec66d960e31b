"""``ptq4vm export``: write a quantized network as an integer graph (or the float one), verify it, explain it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

from rich.console import Console

from ptq4vm import api
from ptq4vm.cli.frame import FAILED, Command
from ptq4vm.cli.values import KeyValues, parse_size
from ptq4vm.errors import ConfigError
from ptq4vm.report.explanation import explanation_table, reasons_table, totals

USAGE = """usage: ptq4vm export checkpoint=DIR target=onnx|openvino|litert|tensorrt out=FILE [KEY=VALUE...]
       ptq4vm export verify checkpoint=DIR file=FILE [frames=24] [clips=3] [clip=DIR] [threads=N]
       ptq4vm export explain FILE [frames=24] [rows=25] [clip=DIR] [threads=N] [out=DIR]

  checkpoint          a run folder of `ptq4vm quantize`, or fp32: the float network, to compare with
  target              onnx (out=FILE.onnx), openvino (out=FILE.xml, with FILE.bin beside it), litert (out=FILE.tflite),
                      tensorrt (out=FILE.trt.onnx; W8A8 of a run with +target=tensorrt) or, for binary networks,
                      bits (out=FILE.bits)
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

explain: which operations of FILE run with integers on this CPU, which do not and why, and what each costs
  frames=24           that are timed, of a drawn portrait or of clip
  warm_up=5           frames before them
  rows=25             of the table; null for all
  size                width x height, for a file that takes any size (default: 512x288)
  engine=auto         onnx, openvino, bits
  out                 folder for explain.json and explain.md, with all operations
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


@dataclass(frozen=True)
class ExplainOptions:
    """Values of ``ptq4vm export explain``; see ``USAGE``."""

    file: str
    frames: int = 24
    warm_up: int = 5
    rows: int | None = 25
    clip: str | None = None
    size: str | None = None
    threads: int | None = None
    engine: str = "auto"
    out: str | None = None


def export(options: ExportOptions) -> None:
    """Write the file and print its path."""
    values = {**asdict(options), "size": parse_size(options.size)}
    sys.stdout.write(f"{api.export(**values)}\n")


def verify(options: VerifyOptions) -> int:
    """Print how close the file is to its checkpoint; 1 where it is too far away."""
    parity = api.verify(**asdict(options))
    (sys.stdout if parity.passed else sys.stderr).write(f"ptq4vm export verify: {parity}\n")
    return 0 if parity.passed else FAILED


def explain(options: ExplainOptions) -> None:
    """Print what operations cost, for which reasons they are in float, and the integers' share."""
    if options.rows is not None and options.rows < 1:
        raise ConfigError(f"rows={options.rows} is none: use 1 or more, or null for all")
    values = {key: value for key, value in asdict(options).items() if key != "rows"}
    size = None if options.size is None else parse_size(options.size)
    found = api.explain(**{**values, "size": size})
    console = Console()
    console.print(explanation_table(found, options.rows))
    console.print(reasons_table(found))
    for line in (*found.notes, totals(found), *([] if options.out is None else [f"written to {options.out}"])):
        console.print(line, soft_wrap=True, highlight=False)


COMMANDS = (
    Command("export", KeyValues(ExportOptions, USAGE), export),
    Command("export verify", KeyValues(VerifyOptions, USAGE, alone=True), verify),
    Command("export explain", KeyValues(ExplainOptions, USAGE, missing="FILE", first="file"), explain),
)
