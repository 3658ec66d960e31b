"""A page served on this machine, with the headers that let the browser use several threads."""

from __future__ import annotations

import http.server
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_number

HOST = "127.0.0.1"
HEADERS = {
    # together these isolate the page from others, without which a browser has no shared memory and so no threads
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # the page says the same of itself; a worker takes it from here only
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; base-uri 'none'; "
        "form-action 'none'"
    ),
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""What every answer says."""


class PageHandler(http.server.SimpleHTTPRequestHandler):
    """Gives the files of one folder, and no lists of what is in it."""

    # said here because some systems' own tables say otherwise, and browsers refuse modules of another type
    extensions_map: ClassVar[dict[str, str]] = {  # type: ignore[misc]
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".wasm": "application/wasm",
        ".txt": "text/plain; charset=utf-8",
        "": "application/octet-stream",
    }

    def end_headers(self) -> None:
        """Add :data:`HEADERS` to those of the answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Refuse to list a folder."""
        self.send_error(HTTPStatus.NOT_FOUND, "File not found")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests."""


class PageServer(http.server.ThreadingHTTPServer):
    """A server of one folder on this machine's own address, which no other machine reaches.

    Args:
        folder: The folder that :func:`ptq4vm.web.folder.write_folder` wrote.
        port: Port to listen at; 0 for any that is free.

    Raises:
        ConfigError: The port is out of range, taken, or not for this user.
    """

    def __init__(self, folder: Path, port: int) -> None:
        check_number("port", port)
        try:
            super().__init__((HOST, port), partial(PageHandler, directory=str(folder)))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"port={port} cannot be used ({reason.lower()}): choose another port") from error

    @property
    def address(self) -> str:
        """Where the page is, ``http://127.0.0.1:8000/``."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has closed its connection."""
