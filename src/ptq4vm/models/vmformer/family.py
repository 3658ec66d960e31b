"""The small transformer as a family: its weights come from training (``ptq4vm train``), not from the network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ptq4vm.errors import WeightsError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.vmformer.network import VMFormerMini
from ptq4vm.models.weights.cache import Wanted
from ptq4vm.models.weights.files import check_entries

_NAME = "vmformer_mini"


@FAMILIES.register("vmformer")
class VMFormerFamily(NetworkFamily):
    """The small transformer; its argument is ``layers``, optionally."""

    licence = "weights trained by whoever made this file; where they were distilled from RVM, its GPL-3.0 may apply"

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return VMFormerMini(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`: nowhere; they are trained."""
        with torch.device("meta"):
            network = self.build(arguments)
        check = partial(check_entries, network=network, title=_NAME)
        return Wanted(f"{_NAME} (train it: ptq4vm train)", f"{_NAME}.safetensors", _NAME, (), check)

    def load(self, arguments: Arguments, weights: str | Path | None = None) -> MattingNetwork:
        """See :meth:`NetworkFamily.load`.

        Raises:
            WeightsError: No file is given, since none can be fetched, or it is not this network's.
        """
        if weights is None:
            raise WeightsError(
                f"{_NAME} has no published weights: train it (ptq4vm train model={_NAME} schedule=transformer), then "
                "model.weights=RUN/state/distill.safetensors"
            )
        return super().load(arguments, weights)

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
