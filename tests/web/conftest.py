"""A small exported network, and the files of ONNX Runtime Web where they can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import SIZE
from deploy_runs import spec, write_run
from ptq4vm.api import export
from ptq4vm.errors import UnavailableError
from ptq4vm.io import default_cache_dir
from ptq4vm.web.runtime import runtime_files


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """W8A8 RVM of random weights as an ONNX file for frames of 96x64."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("network")
    return export(write_run(folder / "run", spec("w8a8")), folder / "a.onnx", size=SIZE)


@pytest.fixture(scope="session")
def cache() -> Path:
    """A cache folder that holds ONNX Runtime Web."""
    folder = default_cache_dir()  # the user's own: it is 14 MB, by a download of 33
    try:
        runtime_files(folder)
    except UnavailableError as error:
        pytest.skip(str(error))
    return folder
