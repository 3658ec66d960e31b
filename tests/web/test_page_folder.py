"""The folder of a page: what is in it, what is refused, and where ONNX Runtime Web comes from."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from commands import SIZE, files
from deploy_runs import spec, write_run
from ptq4vm import serve_page, web_page
from ptq4vm.api import export
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.errors import ConfigError, DataError, DownloadError, ExportError, SaveError, UnavailableError
from ptq4vm.system.npm import NpmArchive
from ptq4vm.web.folder import describe, page_sources, write_folder
from ptq4vm.web.runtime import PACKAGE, VERSION, runtime_files

CONTENT = {"dist/a.mjs": b"export {};", "dist/a.wasm": b"\0asm"}
SMALL = NpmArchive("some-runtime@1.0.0", 1, {k: hashlib.sha256(v).hexdigest() for k, v in CONTENT.items()})


def small(folder: Path, content: dict[str, bytes] = CONTENT) -> NpmArchive:
    """A package of two files, and a command in the place of npm that gives it and counts how often it was asked."""
    with tarfile.open(folder / "ready.tar", "w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    command = folder / "npm"
    command.write_text(f"#!/bin/sh\necho $2 >> {folder}/asked\ncp {folder}/ready.tar some.tgz\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return replace(SMALL, command=str(command))


@pytest.fixture
def runtime(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "some"
    folder.mkdir()
    return runtime_files(tmp_path / "cache", small(folder))


def written(out: Path, network: Path, runtime: list[Path]) -> Path:
    return write_folder(out, describe(OnnxEngine(network, 1)), network, runtime, VERSION)


def test_the_folder_is_whole(network: Path, runtime: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "site"
    assert written(out, network, runtime) == out / "index.html"
    own = {path.relative_to(page_sources()).as_posix() for path in page_sources().rglob("*") if path.is_file()}
    assert {"index.html", "style.css", "src/main.js", "src/worker.js"} <= own
    assert files(out) == {*own, "model.json", "model.onnx", "LICENCES.txt", "ort/a.mjs", "ort/a.wasm"}
    assert (out / "model.onnx").read_bytes() == network.read_bytes()
    licences = (out / "LICENCES.txt").read_text()
    assert "GPL-3.0" in licences and "MIT License" in licences and "Apache License 2.0" in licences


def test_the_page_knows_the_network(network: Path, runtime: list[Path], tmp_path: Path) -> None:
    written(tmp_path / "site", network, runtime)
    model = json.loads((tmp_path / "site" / "model.json").read_text())
    graph = onnx.load(network).graph
    shapes = {each.name: [d.dim_value for d in each.type.tensor_type.shape.dim] for each in graph.input}
    assert model["size"] == {"width": SIZE[1], "height": SIZE[0]} and model["input"]["name"] == "src"
    assert {
        model["input"]["name"]: model["input"]["shape"],
        **{s["input"]: s["shape"] for s in model["states"]},
    } == shapes
    assert {*model["outputs"].values(), *(s["output"] for s in model["states"])} == {each.name for each in graph.output}
    assert model["metadata"]["bits"] == "w8a8" and model["sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()


def test_the_page_names_nothing_outside() -> None:
    for path in page_sources().rglob("*"):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text, path


def test_our_own_folder_is_written_again(network: Path, runtime: list[Path], tmp_path: Path) -> None:
    page = written(tmp_path / "site", network, runtime)
    page.write_text("old")
    (page.parent / "mine.txt").write_text("kept")
    written(page.parent, network, runtime)
    assert "<!doctype html>" in page.read_text() and (page.parent / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "content"),
    [("thesis.txt", "all"), ("index.html", "<p>mine"), ("model.json", '{"made_by": "me"}'), ("model.json", "[" * 9999)],
)
def test_another_folder_is_left_as_it_is(network: Path, tmp_path: Path, name: str, content: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(content)
    with pytest.raises(ConfigError, match=f"holds {name}, which is not of a page of ours: choose another out"):
        web_page(network, out, cache_dir=tmp_path / "cache")
    assert files(tmp_path) == {f"out/{name}"} and (out / name).read_text() == content


def test_a_command_killed_at_its_first_file_can_be_given_again(
    network: Path, runtime: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / ".model-abcdefgh.json").write_text("{")
    assert written(tmp_path / "site", network, runtime).is_file()
    assert not (tmp_path / "site" / ".model-abcdefgh.json").exists()


def test_out_in_the_place_of_a_file(network: Path, runtime: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SaveError, match="out"):
        written(tmp_path / "out", network, runtime)
    assert (tmp_path / "out").read_text() == "mine"


def test_files_that_are_no_network(network: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(network.read_bytes()[:1000])
    for file, kind, said in (
        (tmp_path / "a.xml", ConfigError, r"a\.xml is no \.onnx file"),
        (tmp_path / "none.onnx", ExportError, r"none\.onnx is missing"),
        (damaged, ExportError, "is no ONNX file or is damaged"),
    ):
        with pytest.raises(kind, match=said):
            web_page(file, tmp_path / "out", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_a_file_of_any_size_is_refused(tmp_path: Path) -> None:
    file = export(write_run(tmp_path / "run", spec("w8a8")), tmp_path / "any.onnx", size=SIZE, dynamic=True)
    with pytest.raises(ExportError, match="any size, the page one: export without dynamic=true"):
        web_page(file, tmp_path / "out")


def test_the_runtime_is_fetched_once(tmp_path: Path) -> None:
    package = small(tmp_path)
    found = runtime_files(tmp_path / "cache", package)
    assert [path.read_bytes() for path in found] == list(CONTENT.values())
    assert runtime_files(tmp_path / "cache", package) == found
    found[0].write_bytes(b"changed")
    assert runtime_files(tmp_path / "cache", package)[0].read_bytes() == CONTENT["dist/a.mjs"]
    assert (tmp_path / "asked").read_text() == "some-runtime@1.0.0\n" * 2


def test_another_runtime_is_not_used(tmp_path: Path) -> None:
    package = small(tmp_path, {**CONTENT, "dist/a.wasm": b"evil"})
    with pytest.raises(DownloadError, match=r"dist/a\.wasm has sha256") as error:
        runtime_files(tmp_path / "cache", package)
    assert not isinstance(error.value, UnavailableError) and files(tmp_path / "cache") <= {"some-runtime-1.0.0/.lock"}


def test_without_npm_the_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no-such-npm is not installed; install npm") as error:
        runtime_files(tmp_path, replace(PACKAGE, command="no-such-npm"))
    assert str(error.value).count("\n") == 0


def test_serving_what_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no page: write one with `ptq4vm web"):
        serve_page(tmp_path)
