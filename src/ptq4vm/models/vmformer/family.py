"""The small transformer as a family: its weights come from training (``ptq4vm train``), not from the network."""

from __future__ import annotations

from typing import Any

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES, Arguments, TrainedFamily
from ptq4vm.models.vmformer.network import VMFormerMini

_NAME = "vmformer_mini"


@FAMILIES.register("vmformer")
class VMFormerFamily(TrainedFamily):
    """The small transformer; its argument is ``layers``, optionally."""

    schedule = " schedule=transformer"
    then = "model.weights=RUN/state/distill.safetensors"

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return VMFormerMini(**arguments).eval()

    def model_name(self, arguments: Arguments) -> str:
        """``vmformer_mini``; see :meth:`NetworkFamily.model_name`."""
        return _NAME

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """See :meth:`NetworkFamily.partition`: the last product is the last layer."""
        layers = ["layers.*"] if int(arguments.get("layers", 2)) else []
        return {
            "blocks": [
                *("backbone.features.*", "embed", *layers, "memory", "queries"),
                *("decoder.decode3", "decoder.decode2", "decoder.decode1", "decoder.decode0"),
            ],
            "float_modules": [],
            "edge_layers": ["backbone.features.0.0", "decoder.decode0.features", "decoder.decode0.queries"],
            "branches": {
                "decoder.decode3.conv.0": [128, 40, 3],
                "decoder.decode2.conv.0": [80, 24, 3],
                "decoder.decode1.conv.0": [40, 16, 3],
                "decoder.decode0.conv.0": [32, 3],
            },
        }
