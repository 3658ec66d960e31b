"""RVM as a family of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.rvm.network import RVM, VARIANTS
from ptq4vm.models.rvm.weights import load_rvm, wanted
from ptq4vm.models.weights.cache import Wanted

_BACKBONES = {
    "mobilenetv3": ["backbone.features.*"],
    "resnet50": ["backbone.conv1", *(f"backbone.layer{number}.*" for number in range(1, 5))],
}
_FIRST = {"mobilenetv3": "backbone.features.0.0", "resnet50": "backbone.conv1"}
_JOINED = {  # channels of what a decoder's block joins: the block before, the encoder's skip, the image
    "mobilenetv3": {3: [128, 40, 3], 2: [80, 24, 3], 1: [40, 16, 3], 0: [32, 3]},
    "resnet50": {3: [256, 512, 3], 2: [128, 256, 3], 1: [64, 64, 3], 0: [32, 3]},
}


@FAMILIES.register("rvm")
class RVMFamily(NetworkFamily):
    """Robust Video Matting; its arguments are ``variant`` and, optionally, ``refiner``."""

    licence = (
        "weights derived from Robust Video Matting (Lin et al.), GPL-3.0: whoever passes this file on is bound by it"
    )

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return RVM(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`."""
        return wanted(arguments["variant"])

    def load(self, arguments: Arguments, weights: str | Path | None = None) -> MattingNetwork:
        """See :meth:`NetworkFamily.load`; without ``refiner``, the deep guided filter where the weights have it."""
        return load_rvm(**arguments, weights=weights)

    def complete(self, arguments: Arguments, network: MattingNetwork) -> dict[str, Any]:
        """See :meth:`NetworkFamily.complete`: the refiner, which may depend on the weights."""
        assert isinstance(network, RVM)
        return {**arguments, "refiner": network.refiner_name}

    def model_name(self, arguments: Arguments) -> str:
        """``rvm_mobilenetv3`` or ``rvm_resnet50``; see :meth:`NetworkFamily.model_name`."""
        return f"rvm_{arguments.get('variant', 'unknown')}"

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """See :meth:`NetworkFamily.partition`."""
        variant = arguments["variant"]
        decoder = [f"decoder.decode{number}" for number in range(4, -1, -1)]
        return {
            "blocks": [*_BACKBONES[variant], "aspp", *decoder, "project_mat"],
            "float_modules": ["refiner", "project_seg"],
            "edge_layers": [_FIRST[variant], "project_mat.conv"],
            "branches": {f"decoder.decode{number}.conv.0": joined for number, joined in _JOINED[variant].items()},
        }

    def downloads(self) -> dict[str, Arguments]:
        """The arguments of ``mobilenetv3`` and ``resnet50``; see :meth:`NetworkFamily.downloads`."""
        return {variant: {"variant": variant} for variant in VARIANTS}
