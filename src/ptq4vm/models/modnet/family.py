"""MODNet as a family of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.modnet.network import MODNet
from ptq4vm.models.modnet.weights import check_state, own_state
from ptq4vm.models.weights.cache import Wanted, find
from ptq4vm.models.weights.files import read_state


@FAMILIES.register("modnet")
class MODNetFamily(NetworkFamily):
    """MODNet; its argument is ``size``, optionally. Its weights are where the user has put them."""

    licence = "weights of MODNet (Ke et al.), Apache-2.0 where they are the authors'"

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return MODNet(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`: nowhere; the authors' folder is not one that programs can read."""
        return Wanted("MODNet", "modnet.safetensors", "mobilenetv2", (), check_state)

    def load(self, arguments: Arguments, weights: str | Path | None = None) -> MattingNetwork:
        """See :meth:`NetworkFamily.load`; the authors' checkpoints are read under their own names."""
        network = self.build(arguments)
        network.load_state_dict(own_state(read_state(find(self.wanted(arguments), weights))))
        return network

    def model_name(self, arguments: Arguments) -> str:
        """``modnet``; see :meth:`NetworkFamily.model_name`."""
        return "modnet"

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """See :meth:`NetworkFamily.partition`: norms of single frames stay float."""
        return {
            "blocks": [
                "backbone.model.features.*",
                *("lr_branch.se_block", "lr_branch.conv_lr16x", "lr_branch.conv_lr8x"),
                *("hr_branch.tohr_enc*", "hr_branch.conv_enc*", "hr_branch.conv_hr4x.*", "hr_branch.conv_hr2x.*"),
                *("f_branch.conv_lr4x", "f_branch.conv_f2x", "f_branch.conv_f.*"),
            ],
            "float_modules": [
                *("lr_branch.*.layers.1", "hr_branch.*.layers.1", "hr_branch.*.*.layers.1"),
                *("f_branch.*.layers.1", "f_branch.*.*.layers.1"),
            ],
            "edge_layers": ["backbone.model.features.0.0", "f_branch.conv_f.1.layers.0"],
            "branches": {
                "hr_branch.conv_enc2x.layers.0": [3, 32],
                "hr_branch.conv_enc4x.layers.0": [32, 32],
                "hr_branch.conv_hr4x.0.layers.0": [64, 32, 3],
                "hr_branch.conv_hr2x.0.layers.0": [32, 32],
                "f_branch.conv_f2x.layers.0": [32, 32],
                "f_branch.conv_f.0.layers.0": [32, 3],
            },
        }
