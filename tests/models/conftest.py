"""Networks with random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ptq4vm.models.rvm.network import RVM


def random_rvm(variant: str, refiner: str = "deep_guided_filter", seed: int = 0) -> RVM:
    """RVM whose batch norms have statistics that matter, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = RVM(variant, refiner)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.2, 0.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


@pytest.fixture(scope="session")
def mobilenet() -> RVM:
    """Not to be changed by a test."""
    return random_rvm("mobilenetv3")


@pytest.fixture(scope="session")
def resnet() -> RVM:
    """Not to be changed by a test."""
    return random_rvm("resnet50")


@pytest.fixture(scope="session")
def mobilenet_state(mobilenet: RVM) -> dict[str, Tensor]:
    return mobilenet.state_dict()
