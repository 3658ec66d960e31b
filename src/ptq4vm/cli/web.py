"""``ptq4vm web``: an exported network as a page that mattes in the browser, and a server for it."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

from ptq4vm import api
from ptq4vm.cli.frame import Command
from ptq4vm.cli.values import KeyValues

USAGE = """usage: ptq4vm web FILE.onnx out=DIR [serve=true] [port=8000]

  FILE.onnx     from `ptq4vm export target=onnx`, of one size
  out           folder for the page: new, empty, or one that this command wrote
  serve=false   serve it on this machine until Ctrl-C, with the headers that give the browser threads
  port=8000     of the server; 0: any that is free

The page mattes videos and the camera by ONNX Runtime Web, which npm fetches the first time (33 MB). Frames stay in
the browser.
"""


@dataclass(frozen=True)
class WebOptions:
    """Values of the command; see ``USAGE``."""

    file: str
    out: str
    serve: bool = False
    port: int = 8000


def web(options: WebOptions) -> None:
    """Write the page and print its path; where asked, serve it and print its address."""
    page = api.web_page(options.file, options.out)
    sys.stdout.write(f"{page}\n")
    if not options.serve:
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        api.serve_page(options.out, options.port, _tell_address)


def _tell_address(address: str) -> None:
    """Print where the page is, at once: the command goes on."""
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


COMMANDS = (Command("web", KeyValues(WebOptions, USAGE, missing="DIR", first="file"), web),)
