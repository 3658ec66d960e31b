from __future__ import annotations

import pytest
from torch import Tensor

from networks import disc_clips, tiny_folded
from ptq4vm.models.base import MattingNetwork


@pytest.fixture(scope="module")
def teacher() -> MattingNetwork:
    """Not to be changed."""
    return tiny_folded()


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return disc_clips(8).frames
