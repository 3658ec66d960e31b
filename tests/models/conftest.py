"""Networks with random weights."""

from __future__ import annotations

import pytest
from torch import Tensor

from networks import random_rvm
from ptq4vm.models.rvm.network import RVM


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
