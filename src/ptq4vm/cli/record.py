"""``run.json`` of a run: what it is and how it was called, written before it begins and when it fails."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ptq4vm.cli.app import REPORTED, explain
from ptq4vm.errors import one_line
from ptq4vm.methods.method import stage_labels
from ptq4vm.runs.layout import FAILED, RUNNING, describe_run, is_finished
from ptq4vm.version import __version__

Description = Callable[[DictConfig, Path], dict[str, Any]]
"""What ``run.json`` says of a run before it begins."""


@contextmanager
def recorded(cfg: DictConfig, run_dir: Path, description: Description | None = None) -> Iterator[None]:
    """Around a run: ``run.json`` says that it runs, and why it failed when it does.

    A folder with a finished run keeps its own: that run may be found finished again, or refuse these settings.

    Args:
        cfg: The composed configuration.
        run_dir: The run folder.
        description: What tells of the run; :func:`describe` where it is one of ``ptq4vm quantize``.
    """
    finished = is_finished(run_dir) and not cfg.overwrite
    if not finished:
        describe_run(run_dir, (description or describe)(cfg, run_dir))
    try:
        yield
    except Exception as error:  # a fault of ours too is the end of this run, and goes on as it is
        if not finished:
            line = explain(error) if isinstance(error, REPORTED) else f"{type(error).__name__}: {one_line(error)}"
            describe_run(run_dir, {"status": FAILED, "error": line})
        raise


def describe(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Gather what ``run.json`` says before the run begins."""
    choices = group_choices()
    return {
        **common(cfg, run_dir, "quantize", f"method={cfg.method.name},bits={choices['bits']}"),
        "method": cfg.method.name,
        "stages": planned_stages(cfg.method),
        "bits": {"weight": _as_written(cfg.bits.weight), "activation": _as_written(cfg.bits.activation)},
        "preset": choices["preset"],
        "flow": choices["flow"],
    }


def group_choices() -> dict[str, Any]:
    """What was chosen of every group of the configuration."""
    return {str(k): v for k, v in HydraConfig.get().runtime.choices.items() if "/" not in str(k)}


def common(cfg: DictConfig, run_dir: Path, command: str, name: str) -> dict[str, Any]:
    """Gather what ``run.json`` says of any kind of run.

    Args:
        cfg: The composed configuration.
        run_dir: The run folder.
        command: Name of the command, ``quantize``.
        name: What a single run is called; a job of a sweep is told by what is swept.
    """
    hydra, choices = HydraConfig.get(), group_choices()
    swept = str(hydra.job.override_dirname) if hydra.mode is not None and hydra.mode.name == "MULTIRUN" else ""
    overrides = [o for o in hydra.overrides.task if not o.startswith("run_dir=")]
    overrides.append(f'run_dir="{run_dir}"')  # in quotes: the folders of a sweep's jobs have = and , in their names
    return {
        "status": RUNNING,
        "error": None,
        "command": shlex.join(["ptq4vm", command, *overrides]),
        "name": swept or name,
        "model": choices["model"],
        "seed": _as_written(cfg.seed),
        "data": choices["data"],
        "choices": choices,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}",
        "version": __version__,
    }


def _as_written(value: Any) -> Any:
    """A value as JSON takes it, also where a list or no number is in its place, which is refused later by its name."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    try:
        json.dumps(plain, allow_nan=False)
    except ValueError:  # inf and nan are numbers to YAML
        return str(plain)
    return plain


def planned_stages(method: DictConfig) -> list[str]:
    """Labels of the stages that a method runs, also where its values are wrong in other ways."""
    label = method.reconstruction.label if method.biq and "reconstruction" in method else None
    return list(stage_labels(bool(method.get("closed_form")), label, method.gac, method.ofa))
