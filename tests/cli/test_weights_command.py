from __future__ import annotations

from pathlib import Path

import pytest

from commands import Workplace, as_found
from ptq4vm.cli.main import main


def test_given_file_is_checked_and_named(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    with as_found(workplace.cache):
        assert main(["weights", "--path", str(workplace.weights)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(workplace.weights)
        assert main(["weights", "resnet50", "--path", str(workplace.weights)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "mobilenetv3" in error and "resnet50" in error


def test_offline_without_cache_names_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with as_found(tmp_path):
        assert main(["weights", "--offline"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ptq4vm weights: no weights for RVM mobilenetv3") and error.count("\n") == 1
    assert all(f"({number})" in error for number in (1, 2, 3, 4))


def test_unknown_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with as_found(tmp_path), pytest.raises(SystemExit) as stop:
        main(["weights", "vgg"])
    assert stop.value.code == 2 and "mobilenetv3" in capsys.readouterr().err
