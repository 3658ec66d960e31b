"""Binary matting networks as a family: their weights come from training (``ptq4vm train``), not from the network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ptq4vm.errors import WeightsError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.weights.cache import Wanted
from ptq4vm.models.weights.files import check_entries

_NAMES = {
    ("ebb", "shb"): "bivm",
    ("sbb", "shb"): "bimatting",
    ("ebb", "dense"): "bivm_ebb",
    ("mobilenetv3", "shb"): "bivm_shb",
    ("mobilenetv3", "dense"): "rvm",
}


@FAMILIES.register("bivm")
class BiVMFamily(NetworkFamily):
    """Binary networks; their arguments are those of :class:`ptq4vm.models.bivm.network.BiVM`."""

    licence = "weights trained by whoever made this file; where they were distilled from RVM, its GPL-3.0 may apply"

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return BiVM(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`: nowhere; they are trained."""
        name = self.model_name(arguments)
        with torch.device("meta"):
            network = self.build(arguments)
        check = partial(check_entries, network=network, title=name)
        return Wanted(f"{name} (train it: ptq4vm train)", f"{name}.safetensors", name, (), check)

    def load(self, arguments: Arguments, weights: str | Path | None = None) -> MattingNetwork:
        """See :meth:`NetworkFamily.load`.

        Raises:
            WeightsError: No file is given, since none can be fetched, or it is not this network's.
        """
        if weights is None:
            name = self.model_name(arguments)
            raise WeightsError(
                f"{name} has no published weights: train it (ptq4vm train model={name}), then checkpoint=RUN"
            )
        return super().load(arguments, weights)

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """See :meth:`NetworkFamily.partition`: what is binary is no quantizer's, and keeps its batch norms."""
        binary = arguments.get("binarizer", "reactnet") != "none"
        parts = ["backbone", "aspp", "decoder"]
        return {
            "blocks": ["project_mat"] if binary else [*parts, "project_mat"],
            "float_modules": [*(parts if binary else ()), "refiner", "project_seg"],
            "edge_layers": ["project_mat.conv"],
            "branches": {},
        }

    def model_name(self, arguments: Arguments) -> str:
        """``bivm``, ``bimatting``, ``rvm_bnn``, ``bivm_ebb``, ...; see :meth:`NetworkFamily.model_name`."""
        parts = (str(arguments.get("encoder", "ebb")), str(arguments.get("decoder", "shb")))
        binarizer = str(arguments.get("binarizer", "reactnet"))
        name = _NAMES.get(parts, "_".join(parts))
        if binarizer == "none":
            return f"{name}_float"
        return name if binarizer == "reactnet" and name != "rvm" else f"{name}_{binarizer}"
