from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ptq4vm.errors import WeightsError
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.rvm.weights import check_state, has_refiner


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
