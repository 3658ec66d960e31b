"""The console command ``ptq4vm``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

USAGE = """usage: ptq4vm COMMAND [OVERRIDES]

  quantize   quantize a network and evaluate every stage
             ptq4vm quantize data=videomatte data.root=PATH bits=w4a4 run_dir=DIR
  evaluate   measure a float or quantized network
             ptq4vm evaluate checkpoint=DIR data=folder data.root=PATH run_dir=OUT
  matte      matte a video, images or a camera
             ptq4vm matte input=VIDEO out=OUT [checkpoint=DIR] [output=alpha]
  weights    find, verify and cache pretrained weights
  report     gather runs and sweeps into one page
             ptq4vm report DIR... [--out DIR] [--title TITLE]

quantize and evaluate are Hydra apps: --help shows every value, -m sweeps.
"""

HYDRA_COMMANDS = ("quantize", "evaluate")
PLAIN_COMMANDS = ("weights", "report", "matte")


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to a subcommand and return its exit status."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    if command in PLAIN_COMMANDS:
        return importlib.import_module(f"ptq4vm.cli.{command}").main(rest)
    if command in HYDRA_COMMANDS:
        # imported late: `ptq4vm --help` should not load torch
        app = importlib.import_module("ptq4vm.cli.app")
        task = getattr(importlib.import_module(f"ptq4vm.cli.{command}"), command)
        return app.run(task, command, rest)
    sys.stderr.write(f"ptq4vm: unknown command {command!r}: use quantize, evaluate, matte, weights or report\n")
    return 2
