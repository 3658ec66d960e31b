"""Reads state dicts from disk and compares them with a network's."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ptq4vm.errors import WeightsError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from ``.pth`` (tensors only: nothing in the file is executed) or ``.safetensors``.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or holds something else than named tensors of
            finite numbers.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {path}: check the path")
    if path.suffix == ".safetensors":
        try:
            return _sound(load_file(path), path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is no readable safetensors file ({error}): fetch it again") from error
    if path.suffix in (".pth", ".pt"):
        return _sound(_read_pth(path), path)
    raise WeightsError(f"{path} is neither .pth nor .safetensors: convert it or choose another file")


def _sound(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Refuse values that are not finite, and whole numbers where a network has real ones (counts are single ones)."""
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{path}: {key!r} has a value that is not finite: fetch it again")
        if value.ndim and not value.is_floating_point():
            raise WeightsError(f"{path}: {key!r} is of type {value.dtype}, not of floats: give the float weights")
    return state


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


def differences(state: Mapping[str, Tensor], network: nn.Module) -> list[str]:
    """Say where names and shapes of a state dict are not the network's: one short text for each entry; none if alike.

    Args:
        state: What :func:`read_state` gave.
        network: On any device; built on the device ``meta`` it costs no memory.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    return [
        *(f"{key} missing" for key in expected.keys() - found.keys()),
        *(f"{key} unknown" for key in found.keys() - expected.keys()),
        *(f"{k} is {found[k]}, not {expected[k]}" for k in expected.keys() & found.keys() if found[k] != expected[k]),
    ]


def check_entries(state: Mapping[str, Tensor], name: str | Path, network: nn.Module, title: str) -> None:
    """Check names and shapes of all entries.

    Args:
        state: What :func:`read_state` gave.
        name: What the weights are called in the error.
        network: That they shall be for; see :func:`differences`.
        title: What the network is called in the error.

    Raises:
        WeightsError: Something is missing, unknown or of another shape.
    """
    faults = differences(state, network)
    if faults:
        raise WeightsError(f"{name} does not hold {title}: {len(faults)} entries differ, as {min(faults)}")
