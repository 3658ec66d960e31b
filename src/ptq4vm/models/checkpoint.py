"""Reads state dicts from disk and checks that they are the wanted network's."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ptq4vm.errors import WeightsError
from ptq4vm.models.rvm.network import RVM

_MARKS = {"mobilenetv3": "backbone.features.0.0.weight", "resnet50": "backbone.layer4.2.conv3.weight"}


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.pth`` (tensors only: nothing in the file is executed) or ``.safetensors``.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or holds something else than named tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {path}: check the path")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is no readable safetensors file ({error}): fetch it again") from error
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path)
    raise WeightsError(f"{path} is neither .pth nor .safetensors: convert it or choose another file")


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is no readable PyTorch state dict ({reason}): fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"{path} holds a {type(state).__name__}, not a state dict of tensors: save state_dict() only"
        )
    return state


def has_refiner(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a deep guided filter are there."""
    return any(key.startswith("refiner.") for key in state)


def check_state(state: Mapping[str, Tensor], variant: str, name: str | Path) -> None:
    """Check names and shapes of all entries; a whole deep guided filter may be there or not.

    Args:
        state: What :func:`read_state` gave.
        variant: The wanted network.
        name: What to call the weights in an error.

    Raises:
        WeightsError: Something is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = RVM(variant, "deep_guided_filter" if has_refiner(state) else "fast_guided_filter")
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected == found:
        return
    for other, mark in _MARKS.items():
        if other != variant and mark in found:
            raise WeightsError(f"{name} holds RVM {other}, not {variant}: choose that model or other weights")
    faults = [
        *(f"{key} missing" for key in expected.keys() - found.keys()),
        *(f"{key} unknown" for key in found.keys() - expected.keys()),
        *(f"{k} is {found[k]}, not {expected[k]}" for k in expected.keys() & found.keys() if found[k] != expected[k]),
    ]
    raise WeightsError(f"{name} does not hold RVM {variant}: {len(faults)} entries differ, as {min(faults)}")
