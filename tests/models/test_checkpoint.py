from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ptq4vm.errors import WeightsError
from ptq4vm.models.checkpoint import check_state, has_refiner, read_state
from ptq4vm.models.rvm.network import RVM


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


def test_accepts_weights_with_and_without_refiner(mobilenet_state: dict[str, Tensor]) -> None:
    check_state(mobilenet_state, "mobilenetv3", "w")
    assert has_refiner(mobilenet_state)
    bare = {k: v for k, v in mobilenet_state.items() if not k.startswith("refiner.")}
    check_state(bare, "mobilenetv3", "w")
    assert not has_refiner(bare)


def test_names_the_other_network(mobilenet_state: dict[str, Tensor], resnet: RVM) -> None:
    with pytest.raises(WeightsError, match=r"^w\.pth holds RVM mobilenetv3, not resnet50"):
        check_state(mobilenet_state, "resnet50", "w.pth")
    with pytest.raises(WeightsError, match="holds RVM resnet50, not mobilenetv3"):
        check_state(resnet.state_dict(), "mobilenetv3", "w.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aspp.aspp1.0.weight": None}, r"1 entries differ, as aspp\.aspp1\.0\.weight missing"),
        ({"extra": torch.rand(1)}, "1 entries differ, as extra unknown"),
        ({"aspp.aspp1.0.weight": torch.rand(1)}, r"aspp\.aspp1\.0\.weight is \(1,\), not \(128, 960, 1, 1\)"),
        ({"refiner.conv.6.bias": None}, r"refiner\.conv\.6\.bias missing"),
    ],
)
def test_names_what_differs(mobilenet_state: dict[str, Tensor], change: dict[str, Tensor | None], message: str) -> None:
    state = {k: v for k, v in {**mobilenet_state, **change}.items() if v is not None}
    with pytest.raises(WeightsError, match=message):
        check_state(state, "mobilenetv3", "w")


def test_another_network_altogether() -> None:
    with pytest.raises(WeightsError, match="does not hold RVM resnet50"):
        check_state(torch.nn.Linear(2, 2).state_dict(), "resnet50", "w")
