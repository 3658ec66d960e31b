from __future__ import annotations

import pytest
from torch import Tensor

from networks import disc_clips, folded_rvm
from ptq4vm.models.base import MattingNetwork


@pytest.fixture(scope="session")
def rvm() -> MattingNetwork:
    """Folded; not to be changed by a test."""
    return folded_rvm()


@pytest.fixture(scope="session")
def clip() -> Tensor:
    """Five small frames, ``(1, 5, 3, 32, 32)``."""
    return disc_clips(1, 5, 32).frames
