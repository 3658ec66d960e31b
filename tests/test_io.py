"""Files are written whole or not at all, and what a kill has left is removed by the next that writes there."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ptq4vm.io import atomic_path, parse_json, remove_leftovers, write_tensors, write_text

WRITER = """
import sys
from pathlib import Path
from ptq4vm.io import atomic_path

with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("in", flush=True)
    input()
"""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_a_kill_has_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    target = tmp_path / "v.mp4"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        remove_leftovers(tmp_path)
        assert len(hidden(tmp_path)) == 1, "a live process is writing it"
        other.send_signal(signal.SIGKILL)
        other.wait()
    (tmp_path / ".lock").touch()
    (tmp_path / ".v-mine.mp4").touch()
    remove_leftovers(tmp_path, "w", ".mp4")
    assert len(hidden(tmp_path)) == 3, "it is not that file's"
    remove_leftovers(tmp_path, "v", ".mp4")
    assert hidden(tmp_path) == [".lock", ".v-mine.mp4"] and not target.exists()


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("tw")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "one" and not hidden(tmp_path)
    remove_leftovers(tmp_path / "nowhere")


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    metadata = {name: f"{name} \u00e9\n" for name in "qwertyuiop"}
    written = []
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.int8)}, metadata)
        written.append(path.read_bytes())
        with safe_open(path, "pt") as file:
            assert file.metadata() == metadata and torch.equal(file.get_tensor("b"), torch.ones(3))
    assert len(set(written)) == 1
    write_tensors(tmp_path / "plain.safetensors", {"a": torch.ones(1)})
    assert torch.equal(load_file(tmp_path / "plain.safetensors")["a"], torch.ones(1))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400"])
def test_numbers_that_could_not_be_written_again_are_not_read(number: str) -> None:
    with pytest.raises(ValueError, match=f"{number} is no finite number"):
        parse_json(f'{{"a": [{number}]}}')
    assert not math.isfinite(parse_json(number, finite=False))
