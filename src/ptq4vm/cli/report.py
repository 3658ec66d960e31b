"""``ptq4vm report``: gather runs into one HTML page, results.csv and results.md."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ptq4vm.cli.app import one_line
from ptq4vm.errors import PTQ4VMError
from ptq4vm.report.page import write_report


def main(arguments: Sequence[str]) -> int:
    """Write a report on the runs below some folders and print where its page is; 1 when there is nothing to report."""
    parser = argparse.ArgumentParser(prog="ptq4vm report", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="run folders, or folders of sweeps")
    parser.add_argument("--out", type=Path, metavar="DIR", help="gets the report (default: report in the first PATH)")
    parser.add_argument("--title", help="heading of the page (default: the names of the folders)")
    options = parser.parse_args(list(arguments))
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setFormatter(logging.Formatter("ptq4vm report: %(message)s"))
    logger = logging.getLogger("ptq4vm")
    logger.addHandler(warnings)
    try:
        sys.stdout.write(f"{write_report(options.paths, options.out, options.title)}\n")
    except PTQ4VMError as error:
        sys.stderr.write(f"ptq4vm report: {one_line(error)}\n")
        return 1
    finally:
        logger.removeHandler(warnings)
    return 0
