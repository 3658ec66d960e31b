from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ptq4vm.errors import WeightsError
from ptq4vm.models.weights.files import check_entries, read_state


class Surprise:
    """What a checkpoint must not be able to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
def test_reads_both_kinds(tmp_path: Path, name: str) -> None:
    state = {"a": torch.rand(2, 3), "n": torch.tensor(4)}
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    got = read_state(path)
    assert got.keys() == state.keys()
    assert all(torch.equal(got[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"<html>" * 100])
def test_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name) as error:
        read_state(tmp_path / name)
    assert "\n" not in str(error.value)


def test_truncated_pth(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsError, match="no readable PyTorch state dict"):
        read_state(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*absent\.pth"):
        read_state(tmp_path / "absent.pth")


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"neither \.pth nor \.safetensors"):
        read_state(tmp_path / "w.onnx")


def test_nothing_in_a_pth_is_executed(tmp_path: Path) -> None:
    torch.save({"a": Surprise(tmp_path / "made")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no readable PyTorch state dict"):
        read_state(tmp_path / "w.pth")
    assert not (tmp_path / "made").exists()


def test_pth_with_more_than_tensors(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.rand(1)}, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="not a state dict of tensors"):
        read_state(tmp_path / "w.pth")


def test_names_what_a_network_lacks() -> None:
    state = torch.nn.Linear(2, 3).state_dict()
    check_entries(state, "w.pth", torch.nn.Linear(2, 3, device="meta"), "a layer")
    with pytest.raises(WeightsError, match=r"^w\.pth does not hold a layer: 2 entries differ, as bias is \(3,\), not"):
        check_entries(state, "w.pth", torch.nn.Linear(2, 4), "a layer")
