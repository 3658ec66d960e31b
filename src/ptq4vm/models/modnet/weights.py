"""MODNet's checkpoints: what the authors' training left in them that the network does not have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ptq4vm.models.modnet.network import MODNet
from ptq4vm.models.weights.files import check_entries

_WRAPPER = "module."
_LEFT_OUT = ("lr_branch.backbone.", "lr_branch.conv_lr.", "hr_branch.conv_hr.")
"""The encoder by its second name, and the heads of training."""
_GATE = "lr_branch.se_block.fc."
_MATRIX = 2


def own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`MODNet` from a checkpoint of the authors or from one of our own.

    Args:
        state: By the authors' names, with or without those of ``torch.nn.DataParallel``.
    """
    found = {}
    for key, value in state.items():
        name = key.removeprefix(_WRAPPER)
        if not name.startswith(_LEFT_OUT):
            linear = name.startswith(_GATE) and value.ndim == _MATRIX
            found[name] = value[:, :, None, None] if linear else value
    return found


def check_state(state: Mapping[str, Tensor], name: str | Path) -> None:
    """Check names and shapes of all entries.

    Args:
        state: What :func:`~ptq4vm.models.weights.files.read_state` gave.
        name: What to call the weights in an error.

    Raises:
        WeightsError: Something is missing, unknown or of another shape.
    """
    with torch.device("meta"):
        network = MODNet()
    check_entries(own_state(state), name, network, "MODNet")
