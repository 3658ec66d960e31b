"""An exported network as a page for browsers, and a server for it on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ptq4vm.engines.registry import open_engine
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.web.folder import MODEL, PAGE, check_folder, describe, write_folder
from ptq4vm.web.runtime import VERSION, runtime_files
from ptq4vm.web.server import PageServer

SUFFIX = ".onnx"


def web_page(file: str | Path, out: str | Path, *, cache_dir: Path | None = None) -> Path:
    """Write a folder whose page mattes videos and the camera in a browser, with an exported network.

    ONNX Runtime Web is fetched by npm the first time, verified and cached; the folder itself asks no network.

    Args:
        file: From ``ptq4vm export target=onnx``, of one size.
        out: The folder: new, empty, or a page of ours, whose files are replaced.
        cache_dir: Where ONNX Runtime Web is kept; :func:`~ptq4vm.io.default_cache_dir` by default.

    Returns:
        ``index.html`` in the folder. It works where a server gives it, with the headers of
        :data:`ptq4vm.web.server.HEADERS` on several threads.

    Raises:
        ConfigError: ``file`` is not ``.onnx``, or ``out`` holds something that is not ours.
        ExportError: The file is missing, damaged, not one of ours, or takes frames of any size.
        UnavailableError: ONNX Runtime Web is not cached and cannot be fetched.
        DownloadError: It came damaged.
        SaveError: A file cannot be written.
    """
    network, folder = Path(file), Path(out)
    if network.suffix.lower() != SUFFIX:
        raise ConfigError(f"{file} is no {SUFFIX} file: give one that `ptq4vm export target=onnx` wrote")
    model = describe(open_engine(network, 1, "onnx"))
    check_folder(folder)  # before anything is fetched for it
    return write_folder(folder, model, network, runtime_files(cache_dir), VERSION)


def serve_page(folder: str | Path, port: int = 8000, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve a page on this machine's own address until the process is interrupted.

    Args:
        folder: What :func:`web_page` wrote.
        port: Port to listen at; 0 for any that is free.
        on_ready: Is told the page's address when it can be opened.

    Raises:
        ConfigError: The port is out of range, taken, or not for this user.
        DataError: The folder holds no page.
    """
    path = Path(folder)
    if not all((path / name).is_file() for name in (PAGE, MODEL)):
        raise DataError(f"{folder} holds no page: write one with `ptq4vm web FILE.onnx out={folder}`")
    with PageServer(path, port) as server:
        if on_ready is not None:
            on_ready(server.address)
        server.serve_forever()
