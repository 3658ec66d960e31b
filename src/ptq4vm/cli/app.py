"""The grammar of commands that are Hydra apps: where their configuration is, and Hydra's errors as one line."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from ptq4vm.cli.frame import FAILED, Command, Task, Terminated, is_unread, tell
from ptq4vm.cli.workers import FailedJobs, missing_plugin, prepare_worker
from ptq4vm.errors import ConfigError, PTQ4VMError, one_line
from ptq4vm.runs.layout import folder_name
from ptq4vm.settings import bit_choices, choices, config_folder, renamed, unknown_choice

log = logging.getLogger(__name__)

REPORTED = (PTQ4VMError, HydraException, OmegaConfBaseException, OSError)
"""Errors that are the user's to mend; anything else is a fault of ours and keeps its traceback."""


# here and not in a function: a launcher's worker asks for a job's folder before it runs anything of ours
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def register_bits() -> None:
    """Make ``bits=wXaY`` known for every X and Y that has no file of its own."""
    store = ConfigStore.instance()
    for name, node in bit_choices().items():
        if not (config_folder() / "bits" / f"{name}.yaml").is_file():
            store.store(group="bits", name=name, node=node)


@dataclass(frozen=True)
class Overrides:
    """Values of a Hydra app; the task takes the composed configuration and gives what a sweeper minimises, or nothing.

    Attributes:
        config: File in ``conf`` that the arguments override.
    """

    config: str = "config"

    def call(self, name: str, arguments: Sequence[str], task: Task) -> int:
        """See :meth:`ptq4vm.cli.frame.Grammar.call`.

        Errors are told here: after one, the other jobs of a sweep still run.
        """
        # Hydra would turn every error into several lines of its own; we want the exceptions
        os.environ["HYDRA_FULL_ERROR"] = "1"
        register_bits()
        arguments = [renamed(argument) for argument in arguments]
        failed: list[str] = []
        running: list[bool] = []
        elsewhere = FailedJobs()

        def report(line: str) -> None:
            failed.append(line)
            tell(name, line)

        def explained(error: BaseException) -> None:
            if is_unread(error):
                raise error
            report(explain(error, arguments, self.config))

        missing = missing_plugin(arguments)
        if missing is not None:
            raise ConfigError(missing)
        _check_choices(arguments)
        app = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=self.config)(
            _reporting(task, explained, running, elsewhere)
        )
        before = sys.argv
        try:
            sys.argv = [f"ptq4vm {name}", *_for_hydra(arguments)]  # the only way to hand arguments to Hydra
            app()
        except REPORTED as error:
            explained(error)
        except ValueError as error:  # how Hydra refuses logger=null, for one
            if running:
                raise
            explained(error)
        except SystemExit as stop:
            if not running:  # after --help, or arguments that begin with a dash and mean nothing
                return stop.code if isinstance(stop.code, int) else 0
            if is_unread(stop):
                raise
            raise Terminated from stop  # how Lightning ends a loop after SIGTERM
        finally:
            sys.argv = before
            for line in elsewhere.take():
                report(line)
        return FAILED if failed else 0


def _check_choices(arguments: Sequence[str]) -> None:
    """Refuse a list or a mapping where the name of a choice belongs: Hydra fails on one and ignores the other."""
    parser = OverridesParser.create()
    for argument in arguments:
        group, equals, _ = argument.lstrip("+").partition("=")
        if not (equals and re.fullmatch(r"[a-z][\w/]{0,63}", group) and choices(group)):
            continue
        try:
            override = parser.parse_override(argument)
            given = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
        except HydraException:  # no override at all: Hydra says so when it reads it
            continue
        for value in given:
            if isinstance(value, (list, dict)):
                raise ConfigError(unknown_choice(group, str(value)))


def hydra_command(name: str, task: Task, config: str = "config") -> Command:
    """A command that is a Hydra app: it can sweep, and be gone on with. Hydra sets up logging, Lightning signals."""
    after = "; the same command goes on from here"
    return Command(name, Overrides(config), task, after, log=None, own_signals=True)


def _for_hydra(arguments: Sequence[str]) -> list[str]:
    """Arguments as Hydra wants them: ``-m`` in front, and the folders of a sweep named by what is swept alone."""
    if not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    overrides = [a for a in arguments if a not in ("-m", "--multirun")]
    parsed = OverridesParser.create().parse_overrides([a for a in overrides if not a.startswith("-")])
    swept = {o.key_or_group for o in parsed if o.is_sweep_override()}
    fixed = sorted({o.key_or_group for o in parsed} - swept)
    return ["-m", *overrides, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]


def _reporting(task: Task, report: Callable[[BaseException], None], running: list[bool], elsewhere: FailedJobs) -> Task:
    """The task with its errors reported here: Hydra adds a line of its own to those that it sees.

    ``running`` is not empty while the task runs, and after an error that was not foreseen.
    """
    process = os.getpid()

    @functools.wraps(task)
    def wrapped(cfg: DictConfig) -> float | None:
        value = None
        here = os.getpid() == process
        if not here:  # a launcher's worker
            prepare_worker()
        running.append(True)
        try:
            value = task(cfg)
        except REPORTED as error:
            if here:
                report(error)
            else:
                elsewhere.add(explain(error))
        running.clear()
        return value

    return wrapped


def explain(error: BaseException, arguments: Sequence[str] = (), config: str = "config") -> str:
    """One line about an error: the message of ours that caused it, or Hydra's with what could be written instead."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PTQ4VMError):
        cause = cause.__cause__
    if cause is not None:
        return one_line(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/..") if ".." in error.missing_cfg_file else ("", "", "")
        if group:
            return unknown_choice(group, f"..{name}")
        group, _, name = error.missing_cfg_file.rpartition("/")
        return unknown_choice(group, name) if group else one_line(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read the override {error.override!r}: write key=value, with quotes around special characters"
    for argument in arguments if isinstance(error, ValueError) else ():
        group, _, name = argument.partition("=")
        if name == "null" and (config_folder() / group).is_dir():
            return unknown_choice(group, name)
    if isinstance(error, ConfigCompositionException):
        key = re.match(r"Could not override '([^']+)'", str(error))
        if key:
            return _unknown_key(key.group(1), arguments, config)
    if isinstance(error, InterpolationToMissingValueError):
        missing = re.search(r"Missing mandatory value: ([\w.]+)", str(error))
        if missing:
            return f"{missing.group(1)} has no value: add {missing.group(1)}=... to the command"
    return one_line(error)


def _unknown_key(key: str, arguments: Sequence[str], config: str) -> str:
    """Say which keys there are at the place of one that there is not."""
    groups = [a for a in arguments if "=" in a and (config_folder() / a.split("=")[0]).is_dir() and "," not in a]
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        node: Any = hydra.compose(config, overrides=groups)
    path = key.split(".")
    known = 0
    while known < len(path) - 1 and isinstance(node, DictConfig) and OmegaConf.is_config(node.get(path[known])):
        node = node[path[known]]
        known += 1
    name = ".".join(path[: known + 1])
    where = f" in {'.'.join(path[:known])}" if known else ""
    return f"{name} is unknown: keys{where} are {', '.join(sorted(str(k) for k in node))}"


def plain(node: DictConfig) -> dict[str, Any]:
    """A resolved plain dictionary of a configuration node."""
    value = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(value, dict)
    return {str(k): v for k, v in value.items()}
