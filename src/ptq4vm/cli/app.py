"""What every Hydra subcommand shares: where the configuration is, and errors as one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import ptq4vm
from ptq4vm.errors import PTQ4VMError
from ptq4vm.ops.allocator import keep_freed_memory
from ptq4vm.quant.spec import MAX_BITS, MIN_BITS

log = logging.getLogger(__name__)


def config_folder() -> Path:
    """The ``conf`` folder: inside an installed wheel, or at the top of a checkout."""
    package = Path(ptq4vm.__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def register_bits() -> None:
    """Make ``bits=wXaY`` known for every X and Y that has no file of its own."""
    store = ConfigStore.instance()
    for weight in range(MIN_BITS, MAX_BITS + 1):
        for activation in range(MIN_BITS, MAX_BITS + 1):
            name = f"w{weight}a{activation}"
            if not (config_folder() / "bits" / f"{name}.yaml").is_file():
                store.store(group="bits", name=name, node={"weight": weight, "activation": activation})


def run(task: Callable[[DictConfig], Any], name: str, arguments: Sequence[str]) -> int:
    """Run a task as a Hydra app with command-line overrides.

    Returns:
        Exit status: 0, or 1 after an error that was reported in one line. Anything unforeseen is raised.
    """
    # Hydra would turn every error into several lines of its own; we want the exceptions
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_bits()
    keep_freed_memory()
    sys.argv = [f"ptq4vm {name}", *arguments]
    app = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(task)
    try:
        app()
    except (PTQ4VMError, HydraException, OmegaConfBaseException) as error:
        sys.stderr.write(f"ptq4vm {name}: {one_line(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"ptq4vm {name}: interrupted; the same command goes on from here\n")
        return 130
    return 0


def one_line(error: BaseException) -> str:
    """The message of an error, or of the error of ours that caused it, without line breaks."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PTQ4VMError):
        cause = cause.__cause__
    return " ".join(str(cause or error).split())


def plain(node: DictConfig) -> dict[str, Any]:
    """A resolved plain dictionary of a configuration node."""
    value = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(value, dict)
    return {str(k): v for k, v in value.items()}
