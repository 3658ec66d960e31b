"""``ptq4vm weights``: find, verify and cache pretrained weights."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from typing import Any

from rich.logging import RichHandler

from ptq4vm.cli.frame import Command
from ptq4vm.cli.values import Options
from ptq4vm.models.family import FAMILIES, NetworkFamily
from ptq4vm.models.weights.cache import find


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments and options to its parser."""
    parser.add_argument("variant", nargs="?", default="mobilenetv3", choices=list(_offered()))
    parser.add_argument("--path", help="a .pth or .safetensors file to check and use")
    parser.add_argument("--offline", action="store_true", help="use the cache only")


def weights(options: argparse.Namespace) -> None:
    """Print the path of the weights of one network."""
    family, values = _offered()[options.variant]
    sys.stdout.write(f"{find(family.wanted(values), options.path, offline=options.offline)}\n")


def _offered() -> dict[str, tuple[NetworkFamily, Mapping[str, Any]]]:
    """What families can fetch, by the name that the command knows it by."""
    families = [entry() for entry in FAMILIES.values()]
    return {name: (family, values) for family in families for name, values in family.downloads().items()}


def _progress(name: str) -> logging.Handler:
    """Shows where weights are looked for: a download takes its time."""
    handler = RichHandler(logging.INFO, show_path=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


COMMANDS = (Command("weights", Options(describe, __doc__), weights, log=_progress),)
