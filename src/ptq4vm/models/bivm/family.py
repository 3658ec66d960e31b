"""Binary matting networks as a family: their weights come from training (``ptq4vm train``), not from the network."""

from __future__ import annotations

from typing import Any

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.models.family import FAMILIES, Arguments, TrainedFamily

_NAMES = {
    ("ebb", "shb"): "bivm",
    ("sbb", "shb"): "bimatting",
    ("ebb", "dense"): "bivm_ebb",
    ("mobilenetv3", "shb"): "bivm_shb",
    ("mobilenetv3", "dense"): "rvm",
}


@FAMILIES.register("bivm")
class BiVMFamily(TrainedFamily):
    """Binary networks; their arguments are those of :class:`ptq4vm.models.bivm.network.BiVM`."""

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return BiVM(**arguments).eval()

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
