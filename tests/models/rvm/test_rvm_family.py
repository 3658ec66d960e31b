from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ptq4vm import settings
from ptq4vm.models.family import FAMILIES
from ptq4vm.models.rvm.family import RVMFamily
from ptq4vm.models.rvm.network import RVM, VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_family_and_configuration_say_the_same(variant: str) -> None:
    family = FAMILIES["rvm"]()
    values = settings.read_choice("model", f"rvm_{variant}")
    assert values["family"] == "rvm" and values["arguments"] == {"variant": variant}
    assert settings.partition(family.partition(values["arguments"])) == settings.partition(values["partition"])
    assert family.model_name(values["arguments"]) == f"rvm_{variant}"
    assert family.downloads()[variant] == values["arguments"]
    assert family.wanted(values["arguments"]).file == f"rvm_{variant}.safetensors"


def test_registered_once_under_its_name() -> None:
    assert FAMILIES["rvm"] is RVMFamily and "rvm" in FAMILIES.names()


@pytest.mark.parametrize("deep", [True, False])
def test_what_is_recorded_builds_the_loaded_network_again(
    mobilenet_state: dict[str, Tensor], deep: bool, tmp_path: Path
) -> None:
    state = {key: value for key, value in mobilenet_state.items() if deep or not key.startswith("refiner.")}
    save_file(state, tmp_path / "w.safetensors")
    family, arguments = RVMFamily(), {"variant": "mobilenetv3"}
    network = family.load(arguments, tmp_path / "w.safetensors")
    recorded = family.complete(arguments, network)
    assert recorded == {**arguments, "refiner": "deep_guided_filter" if deep else "fast_guided_filter"}
    again = family.build(recorded)
    assert isinstance(again, RVM) and not again.training
    again.load_state_dict(network.state_dict())
    frames = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(frames, downsample_ratio=0.5)[1], network(frames, downsample_ratio=0.5)[1])


def test_states_halve_from_one_to_the_next(mobilenet: RVM) -> None:
    assert mobilenet.state_strides == (2, 4, 8, 16)
    with torch.no_grad():
        states = mobilenet(torch.rand(1, 3, 50, 70))[2:]
    sizes = [(-(-50 // stride), -(-70 // stride)) for stride in mobilenet.state_strides]
    assert [tuple(state.shape[-2:]) for state in states] == sizes
