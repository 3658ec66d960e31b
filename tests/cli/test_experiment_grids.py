"""Experiments: what each sweeps can be composed, value by value."""

from __future__ import annotations

import hydra
import pytest
from omegaconf import DictConfig

from configurations import FOLDER, chosen, compose, configurations, names
from ptq4vm import settings
from ptq4vm.cli.app import plain

pytestmark = pytest.mark.usefixtures(configurations.__name__)

TRAINED = [name for name in names("experiment") if name.startswith("bivm_")]
QUANTIZED = sorted({*names("experiment")} - {*TRAINED})


def experiment_of(command: str, name: str, *overrides: str) -> DictConfig:
    return hydra.compose(
        command, overrides=["data.root=x", f"+experiment={name}", *overrides], return_hydra_config=True
    )


@pytest.mark.parametrize("name", names("scale"))
@pytest.mark.parametrize("experiment", QUANTIZED)
def test_scales(experiment: str, name: str) -> None:
    cfg = experiment_of("config", experiment, "data=folder", f"scale={name}")
    assert cfg.baseline is False and experiment in cfg.run_dir
    assert plain(cfg.preset)["gac"] == plain(chosen("preset", "sweep" if name == "quick" else "paper").preset)["gac"]


@pytest.mark.parametrize("experiment", QUANTIZED)
def test_values_that_are_swept(experiment: str) -> None:
    for key, values in experiment_of("config", experiment, "data=folder").hydra.sweeper.params.items():
        for value in str(values).split(","):
            own = ["data=videomatte", "data.root=x"] if key.startswith("data.") else []
            chosen(*key.split("="), value) if (FOLDER / key).is_dir() else compose(*own, f"{key}={value}")


@pytest.mark.parametrize("experiment", TRAINED)
def test_experiments_of_training(experiment: str) -> None:
    cfg = experiment_of("train", experiment)
    assert experiment in cfg.run_dir
    for key, values in cfg.hydra.sweeper.params.items():
        for value in str(values).split(","):
            swept = experiment_of("train", experiment, f"{key}={value}")
            assert settings.schedule(plain(swept.schedule)) and swept.model.family == "bivm"
