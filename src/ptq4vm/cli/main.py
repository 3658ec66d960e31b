"""The console command ``ptq4vm``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ptq4vm.cli.frame import FAILED, Command, run, show, tell

USAGE = """usage: ptq4vm COMMAND [OVERRIDES]

  quantize     quantize a network and evaluate every stage
               ptq4vm quantize data=videomatte data.root=PATH bits=w4a4 run_dir=DIR
  evaluate     measure a float or quantized network, or a folder of predictions
               ptq4vm evaluate checkpoint=DIR data=folder data.root=PATH run_dir=OUT
               ptq4vm evaluate pred=DIR true=DIR metrics=lr run_dir=OUT
  data check   what a data set holds, and what is wrong or odd about it
               ptq4vm data check data=videomatte240k data.root=PATH run_dir=OUT
  compose      write an evaluation set: foregrounds over backgrounds
               ptq4vm compose data=videomatte240k data.root=PATH static=IMAGES motion=VIDEOS out=DIR
  flow         compute optical flow into the cache, ahead of quantize with the same values
               ptq4vm flow data=videomatte240k data.root=PATH [whole_clips=true] [flow_cache_mib=20000]
  train        train a binary network: 1-bit video matting (BiVM)
               ptq4vm train model=bivm data=videomatte data.root=PATH schedule=quick run_dir=DIR
  sensitivity  how far alpha moves when one layer or one stored tensor alone is quantized
               ptq4vm sensitivity data=videomatte data.root=PATH bits=w4a4 run_dir=OUT
  matte        matte a video, images or a camera
               ptq4vm matte input=VIDEO out=OUT [checkpoint=DIR] [output=alpha]
  export       write a quantized network as an integer graph for ONNX Runtime or OpenVINO
               ptq4vm export checkpoint=DIR target=onnx out=FILE
               ptq4vm export verify checkpoint=DIR file=FILE
               ptq4vm export explain FILE
  benchmark    time, memory and error of engines and exported files, side by side
               ptq4vm benchmark files=a.onnx,b.xml [clips=ROOT] [sizes=512x288]
  web          an exported .onnx file as a page that mattes in the browser
               ptq4vm web FILE.onnx out=DIR [serve=true]
  weights      find, verify and cache pretrained weights
  report       gather runs and sweeps into one page
               ptq4vm report DIR... [--out DIR] [--title TITLE]

Commands with key=value are Hydra apps: --help shows every value, -m sweeps.
"""

COMMANDS = {
    "quantize": "quantize",
    "evaluate": "evaluate",
    "data check": "data",
    "compose": "compose",
    "flow": "flow",
    "train": "train",
    "sensitivity": "sensitivity",
    "weights": "weights",
    "report": "report",
    "matte": "matte",
    "export": "export",
    "benchmark": "benchmark",
    "web": "web",
}
"""Commands to the modules that they are in, which are imported late: most of them load torch."""
FURTHER = {"export verify": "export", "export explain": "export"}


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a subcommand and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    places = {**COMMANDS, **FURTHER}
    words = 2 if " ".join(arguments[:2]) in places else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name in ("-h", "--help", "help"):
        return show(USAGE)
    if name not in places:
        sys.stderr.write(f"ptq4vm: unknown command {name!r}: use one of {', '.join(COMMANDS)}\n")
        return 2
    try:
        Path.cwd()
    except FileNotFoundError:  # before anything is loaded: numerical libraries end the process there
        tell(name, "the working folder has been removed: change into another (cd)")
        return FAILED
    commands: Sequence[Command] = importlib.import_module(f"ptq4vm.cli.{places[name]}").COMMANDS
    return run(next(command for command in commands if command.name == name), rest)
