"""The folder of a page: the network, what the page must know of it, the page itself, and ONNX Runtime Web."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptq4vm.engines.step import StepEngine
from ptq4vm.errors import ConfigError, ExportError, SaveError
from ptq4vm.io import atomic_path, parse_json, remove_leftovers, sha256, write_json, write_text
from ptq4vm.version import __version__

PAGE, MODEL, NETWORK, LICENCES, RUNTIME = "index.html", "model.json", "model.onnx", "LICENCES.txt", "ort"
"""Files of the folder, and the folder in it that holds ONNX Runtime Web."""
FORMAT = 1
"""Version of what ``model.json`` says."""
_MARK = "ptq4vm web"
_MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def page_sources() -> Path:
    """The folder with the page's own files: inside an installed wheel, or ``web`` at the top of a checkout."""
    inside = Path(__file__).parent / "page"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "web"


def describe(engine: StepEngine) -> dict[str, Any]:
    """Gather what the page must know of a network, for ``model.json``.

    Args:
        engine: The exported ONNX file, open.

    Returns:
        ``size`` (``width`` and ``height`` of a frame), ``input`` (name and shape of the frames' tensor, float32 in
        [0, 1]), ``states`` (``input``, ``output`` and ``shape`` of each; float32, zeros before the first frame),
        ``outputs`` (names of ``alpha`` and ``foreground``), ``metadata`` as the file has it, and the mark of ours.

    Raises:
        ExportError: The file takes frames of any size, or pictures as they lie in memory.
    """
    size = engine.frame_size
    if size is None:
        raise ExportError(f"{engine.file} takes frames of any size, the page one: export without dynamic=true")
    if engine.src.rows_first:
        raise ExportError(f"{engine.file} keeps its states inside: export with target=onnx")
    states = engine.state_shapes(size)
    return {
        "made_by": _MARK,
        "format": FORMAT,
        "version": __version__,
        "network": NETWORK,
        "sha256": sha256(engine.file),
        "size": {"width": size[1], "height": size[0]},
        "input": {"name": engine.src.name, "shape": [1, 3, *size]},
        "states": [{"input": name, "output": f"{name[:-1]}o", "shape": list(states[name])} for name in states],
        "outputs": {"alpha": "pha", "foreground": "fgr"},
        "metadata": dict(sorted(engine.metadata.items())),
    }


def check_folder(out: Path) -> None:
    """Refuse a folder that holds anything, unless it is a page of ours, whose files are then ours to replace.

    Args:
        out: The folder, which need not be there.

    Raises:
        ConfigError: It holds something else.
    """
    if not out.is_dir():
        return
    remove_leftovers(out, Path(MODEL).stem, Path(MODEL).suffix)  # of a command that was killed at its first file
    there = sorted(path.name for path in out.iterdir())
    if there and not _is_ours(out):
        raise ConfigError(f"{out} holds {there[0]}, which is not of a page of ours: choose another out")


def _is_ours(out: Path) -> bool:
    """Whether a folder has the mark of one that was written here."""
    try:
        found = parse_json((out / MODEL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("made_by") == _MARK


def write_folder(out: Path, model: Mapping[str, Any], network: Path, runtime: Sequence[Path], version: str) -> Path:
    """Write the folder of a page.

    Args:
        out: The folder, made where it is not there; see :func:`check_folder`.
        model: From :func:`describe`, of ``network``.
        network: The exported ONNX file.
        runtime: The files of ONNX Runtime Web.
        version: Version of ONNX Runtime Web.

    Returns:
        ``index.html`` in the folder, which is written last.

    Raises:
        ConfigError: The folder holds something that is not ours.
        SaveError: A file cannot be written.
    """
    check_folder(out)
    write_json(out / MODEL, model)  # the mark of what is ours, also where it is not finished
    _copy(network, out / NETWORK)
    for file in runtime:
        _copy(file, out / RUNTIME / file.name)
    write_text(out / LICENCES, _licences(model, version))
    sources = page_sources()
    files = sorted(path.relative_to(sources) for path in sources.rglob("*") if path.is_file())
    for name in sorted(files, key=lambda name: name.name == PAGE):
        _copy(sources / name, out / name)
    return out / PAGE


def _copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise SaveError(f"{source} cannot be read ({error.strerror}): look whether it has been removed") from error
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _licences(model: Mapping[str, Any], version: str) -> str:
    """Whose work is in the folder, and under which terms."""
    network = model["metadata"].get("licence", "not said by the file")
    return (
        f"{NETWORK}\n    {network}\n\n"
        f"{PAGE}, style.css, src\n    ptq4vm {__version__}, Apache License 2.0\n\n"
        f"{RUNTIME}\n    ONNX Runtime Web {version}, MIT License\n    Copyright (c) Microsoft Corporation\n\n{_MIT}"
    )
