"""``ptq4vm report``: gather runs into one HTML page, results.csv and results.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ptq4vm.cli.frame import Command
from ptq4vm.cli.values import Options


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments and options to its parser."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="run folders, or folders of sweeps")
    parser.add_argument("--out", type=Path, metavar="DIR", help="gets the report (default: report in the first PATH)")
    parser.add_argument("--title", help="heading of the page (default: the names of the folders)")


def report(options: argparse.Namespace) -> None:
    """Write a report on the runs below some folders and print where its page is."""
    from ptq4vm.report.page import write_report  # late: Matplotlib is of no use to --help

    sys.stdout.write(f"{write_report(options.paths, options.out, options.title)}\n")


COMMANDS = (Command("report", Options(describe, __doc__), report),)
