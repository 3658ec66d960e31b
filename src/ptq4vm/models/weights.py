"""Finds, verifies and caches pretrained weights, in this order: a given file, the cache, the network's places.

Weights are cached as safetensors beside their SHA-256, and never used when the two disagree. The official weights are
licensed under GPL-3.0.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from ptq4vm.errors import ConfigError, SaveError, WeightsError, WeightsUnavailableError
from ptq4vm.io import default_cache_dir, write_tensors, write_text
from ptq4vm.models.checkpoint import check_state, has_refiner, read_state
from ptq4vm.models.rvm.network import RVM, VARIANTS
from ptq4vm.models.sources import Source, default_sources, sha256

_log = logging.getLogger(__name__)


def _sidecar(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _is_intact(target: Path) -> bool:
    """Whether the file is there and has the checksum written beside it."""
    try:
        expected = _sidecar(target).read_text(encoding="utf-8").split()
        return bool(expected) and sha256(target) == expected[0]
    except (OSError, UnicodeDecodeError):
        return False


def resolve(
    variant: str,
    path: Path | str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    sources: Sequence[Source] | None = None,
) -> Path:
    """Find a file with the pretrained weights of ``RVM(variant)``; fetch and cache it where needed.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Args:
        variant: ``mobilenetv3`` or ``resnet50``.
        path: A ``.pth`` or ``.safetensors`` file to use instead of everything below.
        cache_dir: Where to keep weights; :func:`default_cache_dir` by default.
        offline: Do not use the network.
        sources: Places to fetch from, in order; :func:`~ptq4vm.models.sources.default_sources` by default.

    Returns:
        The given path, or the verified file in the cache.

    Raises:
        ConfigError: Unknown variant.
        WeightsError: The given file is not these weights, or every place failed, of which at least one with damaged
            content.
        WeightsUnavailableError: Nothing in the cache, and no place could be reached.
        SaveError: The cache cannot be written.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"unknown RVM variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    if path is not None:
        path = Path(path).expanduser()
        check_state(read_state(path), variant, path)
        _log.info("weights of RVM %s: given file %s", variant, path)
        return path
    target = (cache_dir or default_cache_dir()) / "weights" / f"rvm_{variant}.safetensors"
    if _is_intact(target):
        _log.info("weights of RVM %s: cache %s, checksum verified", variant, target)
        return target
    places = default_sources() if sources is None else sources
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            return _refill(variant, target, places, offline)
    except OSError as error:
        raise SaveError(
            f"cannot fill the cache {target.parent}: {error}; free some space or set PTQ4VM_CACHE to another folder"
        ) from error


def _refill(variant: str, target: Path, sources: Sequence[Source], offline: bool) -> Path:
    """Fill the cache from the first place that answers. Runs under the lock."""
    if _is_intact(target):
        _log.info("weights of RVM %s: cache %s, filled by another process", variant, target)
        return target
    state_of_cache = "does not match its checksum" if target.exists() else "has none"
    level = logging.WARNING if target.exists() else logging.INFO
    _log.log(level, "weights of RVM %s: cache %s %s", variant, target, state_of_cache)
    failures = [f"(1) your own .pth or .safetensors: none given; (2) cache {target}: {state_of_cache}"]
    reachable = False
    for number, source in enumerate(sources, 3):
        try:
            if offline:
                raise WeightsUnavailableError("not tried, offline was asked for")
            _log.info("weights of RVM %s: trying %s", variant, source.title)
            state = source.fetch(variant)
            check_state(state, variant, source.title)
        except WeightsError as error:
            _log.info("weights of RVM %s: %s: %s", variant, source.title, error)
            failures.append(f"({number}) {source.title}: {error}")
            reachable |= not isinstance(error, WeightsUnavailableError)
            continue
        write_tensors(target, state, {"source": source.title})
        write_text(_sidecar(target), f"{sha256(target)}  {target.name}\n")
        _log.info("weights of RVM %s: fetched from %s, cached as %s", variant, source.title, target)
        return target
    message = f"no weights for RVM {variant}: {'; '.join(failures)}; name a file or connect to the network once"
    raise WeightsError(message) if reachable else WeightsUnavailableError(message)


def load_rvm(
    variant: str,
    weights: str | Path | None = None,
    refiner: str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
) -> RVM:
    """Build RVM with pretrained weights, in eval mode, on the CPU.

    Args:
        variant: ``mobilenetv3`` or ``resnet50``.
        weights: A file to load; by default :func:`resolve` finds one.
        refiner: ``deep_guided_filter`` or ``fast_guided_filter``; by default the deep one where the weights have it.
        cache_dir: See :func:`resolve`.
        offline: See :func:`resolve`.

    Raises:
        WeightsError: As :func:`resolve`; or the deep filter is asked for and the weights do not have it.
    """
    path = resolve(variant, weights, cache_dir, offline)
    state = read_state(path)
    check_state(state, variant, path)
    if refiner is None:
        refiner = "deep_guided_filter" if has_refiner(state) else "fast_guided_filter"
    if refiner == "deep_guided_filter" and not has_refiner(state):
        raise WeightsError(f"{path} has no deep guided filter: choose refiner=fast_guided_filter or official weights")
    network = RVM(variant, refiner)
    wanted = network.state_dict().keys()
    network.load_state_dict({key: value for key, value in state.items() if key in wanted})
    return network.eval()
