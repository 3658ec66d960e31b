"""From plain values (a YAML file, a command line) to checked settings; shared by the library and the command line."""

from __future__ import annotations

import functools
import inspect
import logging
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.errors import ConfigError
from ptq4vm.limits import check_number
from ptq4vm.methods.binary.schedule import MattingStage, PretrainingStage, Schedule
from ptq4vm.methods.closed_form import ClosedFormSettings
from ptq4vm.methods.gac import GACSettings
from ptq4vm.methods.method import CalibrationSettings, Method, Preset, ReconstructionForm
from ptq4vm.methods.mixed_bits import Budget
from ptq4vm.methods.schedule import ReconstructionSettings
from ptq4vm.quant.spec import MAX_BITS, MIN_BITS, ActivationSpec, Partition, QuantSpec, WeightSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

RENAMED = {"method.quantizer.activation.affine": "method.quantizer.activation.asymmetric"}
"""Keys of before to those of today. An old key is taken as the new one for a release, with one line in the log."""


def config_folder() -> Path:
    """The ``conf`` folder: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def bit_choices() -> dict[str, dict[str, int]]:
    """Every ``wXaY`` by name, whether it has a file of its own or not."""
    widths = range(MIN_BITS, MAX_BITS + 1)
    return {f"w{w}a{a}": {"weight": w, "activation": a} for w in widths for a in widths}


def choices(group: str) -> list[str]:
    """Names that a configuration group offers, in alphabetical order."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def unknown_choice(group: str, name: str) -> str:
    """The line that says what ``group`` could be instead of ``name``."""
    if group == "bits":
        offered = f"fp32, or wXaY with X and Y from {MIN_BITS} to {MAX_BITS}"
    else:
        offered = f"one of {', '.join(choices(group))}"
    return f"{group}={name} is unknown: use {offered}"


def read_choice(group: str, name: str, **root: Any) -> dict[str, Any]:
    """One choice of a configuration group as plain values, what it inherits from others of the group included.

    Args:
        group: ``model``, ``bits``, ``method``, ``data``, ``preset``, ...
        name: File name without ``.yaml``; for ``bits`` also any ``wXaY``.
        root: Values that the file may refer to (``${seed}``), in place of those in ``config.yaml``.

    Raises:
        ConfigError: There is no such file; the line names those that there are.
    """
    if group == "bits" and name in bit_choices():
        return dict(bit_choices()[name])
    defaults: Any = OmegaConf.load(config_folder() / "config.yaml")
    known = {**{key: defaults[key] for key in ("seed", "memory_mib", "overflow")}, **root}
    whole = OmegaConf.create({**known, group: _inherited(group, name)})
    found = OmegaConf.to_container(whole[group], resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _inherited(group: str, name: str) -> Any:
    """A file over those of its group that its ``defaults`` name, as Hydra composes them."""
    path = config_folder() / group / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown_choice(group, name))
    own: Any = OmegaConf.load(path)
    order = [other for other in own.pop("defaults", ["_self_"]) if isinstance(other, str)]  # others are of other groups
    return OmegaConf.merge(*(own if other == "_self_" else _inherited(group, other) for other in order))


def preset_of(method: str) -> str:
    """Name of the preset that a method's file, or one that it inherits from, chooses; else the one of ``config.yaml``.

    A method without a file, which somebody has put together in Python, takes that one as well.
    """
    path = config_folder() / "method" / f"{method}.yaml"
    loaded: Any = OmegaConf.load(path) if path.is_file() else {}
    for other in reversed(loaded.get("defaults", [])):
        if not isinstance(other, str):
            (key, name), *_ = other.items()
            if key.startswith("override /preset"):
                return str(name)
        elif other != "_self_":
            return preset_of(other)
    whole: Any = OmegaConf.load(config_folder() / "config.yaml")
    return next(str(entry["preset"]) for entry in whole["defaults"] if "preset" in entry)


def renamed(argument: str) -> str:
    """An override of the command line (``key=value``) with the key of today where :data:`RENAMED` has its key.

    A renaming is left alone while no choice of its group has the new key.
    """
    key, sign, value = argument.partition("=")
    old = key.lstrip("+~")
    new = RENAMED.get(old)
    if not sign or new is None or not _offered(new):
        return argument
    _tell_once(old, new)
    return f"{key.removesuffix(old)}{new}={value}"


def _offered(key: str) -> bool:
    """Whether a choice of the group at the front of ``key`` has the rest of it."""
    group, *path = key.split(".")
    for name in choices(group):
        node: Any = read_choice(group, name)
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if node is not None:
            return True
    return False


@functools.cache
def _tell_once(old: str, new: str) -> None:
    log.warning("%s is called %s now: the old key will be gone in the next release", old, new)


def _of_today(values: Mapping[str, Any], known: Sequence[str], prefix: str) -> dict[str, Any]:
    """``values`` under the field names of today; an old name that is a field still, or has none yet, stays."""
    found = dict(values)
    for old, new in RENAMED.items():
        was, field = old.removeprefix(prefix), new.removeprefix(prefix)
        if was in found and was not in known and field in known and field not in found:
            _tell_once(old, new)
            found[field] = found.pop(was)
    return found


def settings(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a settings dataclass from plain values.

    Args:
        cls: The dataclass; values are checked against its annotations. Lists become tuples, integers floats.
        values: By field name, or by the name of before (:data:`RENAMED`); what is left out keeps its default.
        where: Key of ``values`` in the configuration, for messages.

    Raises:
        ConfigError: An unknown or missing key, a value of another type, or one that ``cls`` refuses.
    """
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    values = _of_today(values, known, prefix)
    for key in values:
        if key not in known:
            raise ConfigError(f"{prefix}{key} is unknown: use one of {', '.join(known)}")
    built = {key: _typed(value, hints[key], f"{prefix}{key}") for key, value in values.items()}
    try:
        return cls(**built)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error
    except TypeError as error:
        raise ConfigError(f"{where} is not complete: {error}") from error


def check_arguments(target: Callable[..., Any], values: Mapping[str, Any], where: str) -> None:
    """Check plain arguments of a class against its constructor's annotations.

    Raises:
        ConfigError: An argument is unknown, has no value yet (``???``) or another type.
    """
    parameters = inspect.signature(target, eval_str=True).parameters
    for key in values:
        if key not in parameters:
            known = f"one of {', '.join(parameters)}" if parameters else "nothing"
            raise ConfigError(f"{where}.{key} is unknown: use {known}")
    for key, value in values.items():
        if value == "???":
            raise ConfigError(f"{where}.{key} has no value: give {key}=...")
        _typed(value, parameters[key].annotation, f"{where}.{key}")


def _typed(value: Any, kind: Any, key: str) -> Any:
    """``value`` as an instance of an annotation. Raises :class:`ConfigError`."""
    if get_origin(kind) in (Union, types.UnionType):
        for option in get_args(kind):
            if _fits(value, option):
                return _typed(value, option, key)
    elif _fits(value, kind):
        if get_origin(kind) is tuple:
            kinds = get_args(kind)
            each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else kinds
            return tuple(_typed(item, k, f"{key}[{i}]") for i, (item, k) in enumerate(zip(value, each, strict=True)))
        if kind in (int, float):
            check_number(key, value)
        return float(value) if kind is float else value
    raise ConfigError(f"{key}={value!r} has the wrong type: give {_describe(kind)}")


def _fits(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return isinstance(value, (list, tuple)) and (kinds[-1] is Ellipsis or len(value) == len(kinds))
    return isinstance(value, get_origin(kind) or kind)


def _describe(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        return f"[{', '.join('...' if k is Ellipsis else _describe(k) for k in get_args(kind))}]"
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def quant_spec(bits: Mapping[str, Any], quantizer: Mapping[str, Any]) -> QuantSpec:
    """Bits of a ``bits`` choice, everything else of a method's ``quantizer``. Raises :class:`ConfigError`."""
    where = "method.quantizer"
    parts = dict(quantizer)
    for key, cls in (("weight", WeightSpec), ("activation", ActivationSpec)):
        parts[key] = settings(cls, {**parts.get(key, {}), "bits": bits[key]}, f"{where}.{key}")
    return settings(QuantSpec, parts, where)


def partition(values: Mapping[str, Any]) -> Partition:
    """A model's ``partition``. Raises :class:`ConfigError`."""
    branches = {path: tuple(sizes) for path, sizes in (values.get("branches") or {}).items()}
    return settings(Partition, {**values, "branches": branches}, "model.partition")


def method(values: Mapping[str, Any]) -> Method:
    """A ``method`` choice without its quantizer. Raises :class:`ConfigError`."""
    form = settings(ReconstructionForm, values.get("reconstruction") or {}, "method.reconstruction")
    return settings(Method, {**{k: v for k, v in values.items() if k != "quantizer"}, "reconstruction": form}, "method")


def preset(values: Mapping[str, Any]) -> Preset:
    """A ``preset`` choice. Raises :class:`ConfigError`."""
    parts: dict[str, type[Any]] = {
        "calibration": CalibrationSettings,
        "closed_form": ClosedFormSettings,
        "reconstruction": ReconstructionSettings,
        "gac": GACSettings,
    }
    built = {key: settings(cls, values.get(key, {}), f"preset.{key}") for key, cls in parts.items()}
    return settings(Preset, {**values, **built}, "preset")


def budget(values: Mapping[str, Any]) -> Budget:
    """A ``budget`` of bits. Raises :class:`ConfigError`."""
    return settings(Budget, values, "budget")


def augmentation(values: Mapping[str, Any]) -> Augmentation:
    """An ``augmentation`` choice. Raises :class:`ConfigError`."""
    return settings(Augmentation, values, "augmentation")


def schedule(values: Mapping[str, Any]) -> Schedule:
    """A ``schedule`` of training. Raises :class:`ConfigError`."""
    stages = {
        str(name): settings(MattingStage, stage or {}, f"schedule.stages.{name}")
        for name, stage in (values.get("stages") or {}).items()
    }
    pretraining = settings(PretrainingStage, values.get("pretraining") or {}, "schedule.pretraining")
    return settings(Schedule, {**values, "stages": stages, "pretraining": pretraining}, "schedule")
