"""Finds, verifies and caches pretrained weights, in this order: a given file, the cache, the network's places.

Weights are cached as safetensors beside their SHA-256, and never used when the two disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torch import Tensor

from ptq4vm.errors import SaveError, WeightsError, WeightsUnavailableError
from ptq4vm.io import default_cache_dir, remedy, sha256, write_tensors, write_text
from ptq4vm.models.weights.files import read_state
from ptq4vm.models.weights.sources import Source

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What is known of weights that are looked for.

    Attributes:
        title: What they are of, in messages: ``RVM mobilenetv3``.
        file: Name of the cached file: ``rvm_mobilenetv3.safetensors``.
        variant: Which of the family's networks; the places know it by this.
        sources: Places to fetch from, in order.
        check: Raises :class:`WeightsError` where a state dict is not these weights; its second argument is what the
            error calls it.
    """

    title: str
    file: str
    variant: str
    sources: tuple[Source, ...]
    check: Callable[[Mapping[str, Tensor], str | Path], None]


def _sidecar(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _is_intact(target: Path) -> bool:
    """Whether the file is there and has the checksum written beside it."""
    try:
        expected = _sidecar(target).read_text(encoding="utf-8").split()
        return bool(expected) and sha256(target) == expected[0]
    except (OSError, UnicodeDecodeError):
        return False


def find(wanted: Wanted, path: Path | str | None = None, cache_dir: Path | None = None, offline: bool = False) -> Path:
    """Find a file with pretrained weights; fetch and cache it where needed.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Args:
        wanted: Which weights are looked for, and how they are checked.
        path: A ``.pth`` or ``.safetensors`` file to use instead of everything below.
        cache_dir: Where to keep weights; :func:`~ptq4vm.io.default_cache_dir` by default.
        offline: Whether to keep off the network.

    Returns:
        The given path, or the verified file in the cache.

    Raises:
        WeightsError: The given file is not these weights, or every place failed, of which at least one with damaged
            content.
        WeightsUnavailableError: Nothing in the cache, and no place could be reached.
        SaveError: The cache cannot be written.
    """
    if path is not None:
        path = Path(path).expanduser()
        wanted.check(read_state(path), path)
        _log.info("weights of %s: given file %s", wanted.title, path)
        return path
    target = (cache_dir or default_cache_dir()) / "weights" / wanted.file
    if _is_intact(target):
        _log.info("weights of %s: cache %s, checksum verified", wanted.title, target)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            return _refill(wanted, target, offline)
    except OSError as error:
        raise SaveError(
            f"cannot fill the cache {target.parent}: {error}; {remedy(error, 'set PTQ4VM_CACHE to another folder')}"
        ) from error


def _refill(wanted: Wanted, target: Path, offline: bool) -> Path:
    """Fill the cache from the first place that answers. Runs under the lock."""
    title = wanted.title
    if _is_intact(target):
        _log.info("weights of %s: cache %s, filled by another process", title, target)
        return target
    state_of_cache = "does not match its checksum" if target.exists() else "has none"
    level = logging.WARNING if target.exists() else logging.INFO
    _log.log(level, "weights of %s: cache %s %s", title, target, state_of_cache)
    failures = [f"(1) your own .pth or .safetensors: none given; (2) cache {target}: {state_of_cache}"]
    reachable = False
    for number, source in enumerate(wanted.sources, 3):
        try:
            if offline:
                raise WeightsUnavailableError("not tried, offline was asked for")
            _log.info("weights of %s: trying %s", title, source.title)
            state = source.fetch(wanted.variant)
            wanted.check(state, source.title)
        except WeightsError as error:
            _log.info("weights of %s: %s: %s", title, source.title, error)
            failures.append(f"({number}) {source.title}: {error}")
            reachable |= not isinstance(error, WeightsUnavailableError)
            continue
        write_tensors(target, state, {"source": source.title})
        write_text(_sidecar(target), f"{sha256(target)}  {target.name}\n")
        _log.info("weights of %s: fetched from %s, cached as %s", title, source.title, target)
        return target
    message = f"no weights for {title}: {'; '.join(failures)}; name a file or connect to the network once"
    raise WeightsError(message) if reachable else WeightsUnavailableError(message)
