"""The server of a page, and the command that writes and serves one."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Workplace
from ptq4vm.errors import ConfigError
from ptq4vm.web.server import PageServer

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "src/main.js": "text/javascript; charset=utf-8",
    "ort/a.mjs": "text/javascript; charset=utf-8",
    "ort/a.wasm": "application/wasm",
    "model.json": "application/json",
    "model.onnx": "application/octet-stream",
}


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    for name in TYPES:
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(name)
    (tmp_path / "secret.txt").write_text("secret")
    with PageServer(tmp_path / "site", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("name", TYPES)
def test_files_come_with_their_type_and_isolated(port: int, name: str) -> None:
    status, headers, content = ask(port, f"/{name}")
    assert status == 200 and content == name.encode() and headers["content-type"] == TYPES[name]
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_the_page_is_at_the_root_and_nothing_else_is_told(port: int) -> None:
    assert ask(port, "/")[2] == b"index.html"
    for path in ("/src/", "/../secret.txt", "/%2e%2e/secret.txt", "/none.js"):
        status, headers, content = ask(port, path)
        assert status == 404 and b"secret" not in content.replace(b"secret.txt", b""), path
        assert headers["cross-origin-embedder-policy"] == "require-corp"


def test_ports_that_cannot_be(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={number} cannot be used .*in use.*: choose another port"):
            PageServer(tmp_path, number)
    with pytest.raises(ConfigError, match="port=70000 is out of range: use 65535 at most"):
        PageServer(tmp_path, 70000)


def test_the_command_refuses_in_one_line(tmp_path: Path, network: Path) -> None:
    place = Workplace(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for arguments, said in (
        ([str(network)], "out has no value: add out=DIR"),
        ([str(tmp_path / "none.onnx"), f"out={tmp_path / 'out'}"], "none.onnx is missing"),
        ([str(network), f"out={tmp_path / 'full'}"], "holds mine, which is not of a page of ours"),
        ([str(network), f"out={tmp_path / 'out'}", "port=soon"], "port=soon is no whole number"),
        ([str(network), f"out={tmp_path / 'out'}", "serve=true", "port=70000"], "port=70000 is out of range"),
        ([f"file={network}", f"out={tmp_path / 'out'}", "color=red"], "color is unknown: use one of file, out"),
        ([str(network), "b.onnx"], "cannot read 'b.onnx'"),
    ):
        assert said in place.run("web", *arguments).line()
    assert not (tmp_path / "out").exists()
    assert place.run("web").out.startswith("usage: ptq4vm web FILE.onnx out=DIR")


def test_the_command_writes_and_serves_until_it_is_interrupted(tmp_path: Path, network: Path, cache: Path) -> None:
    out = tmp_path / "site"
    program = "import sys; from ptq4vm.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "web", str(network), f"out={out}", "serve=true", "port=0"]
    environment = {**os.environ, "PTQ4VM_CACHE": str(cache)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline().strip() == str(out / "index.html")
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:") and address.endswith("/")
            status, headers, content = ask(int(address.split(":")[2].strip("/")), "/ort/ort-wasm-simd-threaded.wasm")
            assert status == 200 and headers["content-type"] == "application/wasm" and content[:4] == b"\0asm"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0 and process.stderr.read() == ""
        finally:
            process.kill()
