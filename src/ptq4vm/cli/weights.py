"""``ptq4vm weights``: find, verify and cache pretrained weights."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from rich.logging import RichHandler

from ptq4vm.cli.app import one_line
from ptq4vm.errors import PTQ4VMError
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.weights.cache import find


def main(arguments: Sequence[str]) -> int:
    """Print the path of the weights of one network; 1 when there are none."""
    wanted = {
        name: (family, values)
        for family in (entry() for entry in FAMILIES.values())
        for name, values in family.downloads().items()
    }
    parser = argparse.ArgumentParser(prog="ptq4vm weights", description=__doc__)
    parser.add_argument("variant", nargs="?", default="mobilenetv3", choices=list(wanted))
    parser.add_argument("--path", help="a .pth or .safetensors file to check and use")
    parser.add_argument("--offline", action="store_true", help="use the cache only")
    options = parser.parse_args(list(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    try:
        family, values = wanted[options.variant]
        sys.stdout.write(f"{find(family.wanted(values), options.path, offline=options.offline)}\n")
    except PTQ4VMError as error:
        sys.stderr.write(f"ptq4vm weights: {one_line(error)}\n")
        return 1
    return 0
