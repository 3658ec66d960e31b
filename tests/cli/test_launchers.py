from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from commands import Workplace
from ptq4vm.cli.workers import FailedJobs, missing_plugin
from ptq4vm.errors import PTQ4VMError
from ptq4vm.settings import config_folder

FILES = sorted((config_folder() / "hydra").glob("*/*.yaml"))


def need(name: str) -> None:
    if missing_plugin([f"hydra/launcher={name}"]):
        pytest.skip(f"the plugin is not installed: pip install 'ptq4vm[{name.partition('_')[0]}]'")


@pytest.fixture(autouse=True)
def fresh_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def mad(run: Path) -> float:
    return json.loads((run / "metrics.json").read_text())["mean"]["mad"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_file_builds_its_plugin(path: Path) -> None:
    need(path.stem)
    group = path.parent.name
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = hydra.compose("config", [f"hydra/{group}={path.stem}"], return_hydra_config=True)
    plugin = Plugins.instance()._instantiate(cfg.hydra[group])
    assert isinstance(plugin, {"launcher": Launcher, "sweeper": Sweeper}[group])


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.parent.name == "launcher"])
def test_launchers_are_named_when_one_is_unknown(name: str, workplace: Workplace, tmp_path: Path) -> None:
    line = workplace.quantize(tmp_path, "-m", "hydra/launcher=nowhere", "seed=0,1").line()
    assert "hydra/launcher=nowhere" in line and name in line


@pytest.mark.parametrize(
    "argument", ["hydra/launcher=ray_local", "hydra/launcher=submitit_local", "hydra/sweeper=optuna"]
)
def test_missing_plugin_is_one_line(
    argument: str, workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = workplace.quantize(tmp_path, "-m", argument, "seed=0,1").line()
    extra = {"ray_local": "ray", "submitit_local": "slurm"}.get(argument.partition("=")[2], "optuna")
    assert argument in line and f"pip install 'ptq4vm[{extra}]'" in line
    assert missing_plugin(["hydra/launcher=local", "bits=w4a4", "-m"]) is None


def sweep(launcher: str, workplace: Workplace, tmp_path: Path, seeds: str = "x,1") -> None:
    """Jobs, of which one fails, at a bit-width that has no file, give what they give in one process."""
    jobs = (f"seed={seeds}", "method=rtn", "bits=w3a3")
    line = workplace.quantize(tmp_path / "far", "-m", f"hydra/launcher={launcher}", *jobs).line()
    assert "seed='x'" in line
    found = sorted(path.parent.name for path in (tmp_path / "far").rglob("metrics.json"))
    assert found == [f"seed={seed}" for seed in seeds.split(",")[1:]]
    assert "seed='x'" in (tmp_path / "far" / "seed=x" / "quantize.log").read_text()
    assert workplace.quantize(tmp_path / "near", "seed=1", "method=rtn", "bits=w3a3").status == 0
    assert mad(tmp_path / "far" / "seed=1") == pytest.approx(mad(tmp_path / "near"), abs=1e-6)
    assert not list(Path.cwd().iterdir()), "nothing is left in the working folder"


def test_joblib_runs_jobs_in_other_processes(workplace: Workplace, tmp_path: Path) -> None:
    need("joblib")
    sweep("joblib_cpu", workplace, tmp_path)


def test_ray_runs_jobs_on_this_machine(workplace: Workplace, tmp_path: Path) -> None:
    need("ray")
    ray: Any = importlib.import_module("ray")
    try:
        sweep("ray_local", workplace, tmp_path)
    finally:
        ray.shutdown()


def test_submitit_runs_jobs_in_other_processes(workplace: Workplace, tmp_path: Path) -> None:
    """Through its executor for one machine, which needs no Slurm."""
    need("slurm")
    sweep("submitit_local", workplace, tmp_path, "x,1")


def test_slurm_takes_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("slurm")
    submitit: Any = importlib.import_module("submitit")
    program = tmp_path / "srun"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = hydra.compose("config", ["hydra/launcher=slurm"], return_hydra_config=True)
    cfg.hydra.launcher.submitit_folder = str(tmp_path)
    values: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    times = values.pop("max_num_timeout")
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="slurm", slurm_max_num_timeout=times)
    general = submitit.AutoExecutor._typed_parameters()
    left = {key: value for key, value in values.items() if key not in ("_target_", "submitit_folder")}
    executor.update_parameters(**{key if key in general else f"slurm_{key}": value for key, value in left.items()})
    script = executor._executor._make_submission_file_text("true", "abc")
    assert all(line in script for line in ("--gpus-per-node=1", "--cpus-per-task=8", "--time=720", "--mem=32GB"))


def test_optuna_looks_for_the_smallest_error(workplace: Workplace, tmp_path: Path) -> None:
    need("optuna")
    search = ("hydra/sweeper=optuna_mad", "hydra.sweeper.n_trials=2", "hydra.sweeper.params=null")
    done = workplace.quantize(tmp_path, "-m", *search, "method=rtn", "bits.activation=choice(2,8)", "seed=3")
    assert done.status == 0, done.err
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    runs = sorted(path.parent for path in tmp_path.rglob("metrics.json"))
    assert best["best_value"] == pytest.approx(min(mad(run) for run in runs))
    assert f"bits.activation={best['best_params']['bits.activation']}" in min(runs, key=mad).name


def test_optuna_searches_what_its_file_names(workplace: Workplace, tmp_path: Path) -> None:
    need("optuna")
    fixed = ("method=rtn", "preset.gac.scale_lr=1e-3")
    done = workplace.quantize(tmp_path, "-m", "hydra/sweeper=optuna_mad", "hydra.sweeper.n_trials=1", *fixed)
    assert done.status == 0, done.err
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())["best_params"]
    named = yaml.safe_load((config_folder() / "hydra" / "sweeper" / "optuna_mad.yaml").read_text())["params"]
    assert set(best) == set(named) - {"preset.gac.scale_lr"}


def test_failures_come_home_from_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FailedJobs()
    program = "import pickle, sys; pickle.load(sys.stdin.buffer).add('no such clip')"
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(jobs), check=True, cwd="/")
    assert jobs.take() == ["no such clip"] and jobs.take() == []
    monkeypatch.setattr(jobs, "_folder", tmp_path / "here" / "file")
    (tmp_path / "here" / "file").write_text("in the way")
    with pytest.raises(PTQ4VMError, match="no such clip"):
        jobs.add("no such clip")
