"""RVM's pretrained weights: which files are its own, where they are found, and the network with them in it.

The official weights are licensed under GPL-3.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ptq4vm.errors import ConfigError, WeightsError
from ptq4vm.models.rvm.network import RVM, VARIANTS
from ptq4vm.models.rvm.sources import default_sources
from ptq4vm.models.weights.cache import Wanted, find
from ptq4vm.models.weights.files import check_entries, differences, read_state
from ptq4vm.models.weights.sources import Source

_MARKS = {"mobilenetv3": "backbone.features.0.0.weight", "resnet50": "backbone.layer4.2.conv3.weight"}


def has_refiner(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a deep guided filter are there."""
    return any(key.startswith("refiner.") for key in state)


def check_state(state: Mapping[str, Tensor], variant: str, name: str | Path) -> None:
    """Check names and shapes of all entries; a whole deep guided filter may be there or not.

    Args:
        state: What :func:`~ptq4vm.models.weights.files.read_state` gave.
        variant: The wanted network.
        name: What to call the weights in an error.

    Raises:
        WeightsError: Something is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = RVM(variant, "deep_guided_filter" if has_refiner(state) else "fast_guided_filter")
    if differences(state, network):
        for other, mark in _MARKS.items():
            if other != variant and mark in state:
                raise WeightsError(f"{name} holds RVM {other}, not {variant}: choose that model or other weights")
    check_entries(state, name, network, f"RVM {variant}")


def wanted(variant: str, sources: Sequence[Source] | None = None) -> Wanted:
    """The pretrained weights of ``RVM(variant)``.

    Args:
        variant: ``mobilenetv3`` or ``resnet50``.
        sources: Places to fetch from, in order; :func:`~ptq4vm.models.rvm.sources.default_sources` by default.

    Raises:
        ConfigError: Unknown variant.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"unknown RVM variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    places = tuple(default_sources() if sources is None else sources)
    return Wanted(
        f"RVM {variant}",
        f"rvm_{variant}.safetensors",
        variant,
        places,
        lambda state, name: check_state(state, variant, name),
    )


def resolve(
    variant: str,
    path: Path | str | None = None,
    cache_dir: Path | None = None,
    offline: bool = False,
    sources: Sequence[Source] | None = None,
) -> Path:
    """Find a file with the pretrained weights of ``RVM(variant)``; fetch and cache it where needed.

    Args:
        variant: RVM's encoder, ``mobilenetv3`` or ``resnet50``.
        path: A ``.pth`` or ``.safetensors`` file to use instead of everything below.
        cache_dir: Where to keep weights; :func:`~ptq4vm.io.default_cache_dir` by default.
        offline: Whether to keep off the network.
        sources: See :func:`wanted`.

    Raises:
        ConfigError: Unknown variant.
        WeightsError: See :func:`ptq4vm.models.weights.cache.find`.
        SaveError: The cache cannot be written.
    """
    return find(wanted(variant, sources), path, cache_dir, offline)


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
    own = network.state_dict().keys()
    network.load_state_dict({key: value for key, value in state.items() if key in own})
    return network.eval()
