"""MediaPipe's selfie segmentation as a family of networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ptq4vm.models.base import MattingNetwork
from ptq4vm.models.family import FAMILIES, Arguments, NetworkFamily
from ptq4vm.models.selfie.network import SIZES, Selfie
from ptq4vm.models.selfie.sources import source
from ptq4vm.models.weights.cache import Wanted
from ptq4vm.models.weights.files import check_entries


@FAMILIES.register("selfie")
class SelfieFamily(NetworkFamily):
    """MediaPipe's selfie segmentation; its argument is ``variant``, ``general`` or ``landscape``."""

    licence = "weights of MediaPipe selfie segmentation (Google), Apache-2.0"

    def build(self, arguments: Arguments) -> MattingNetwork:
        """See :meth:`NetworkFamily.build`."""
        return Selfie(**arguments).eval()

    def wanted(self, arguments: Arguments) -> Wanted:
        """See :meth:`NetworkFamily.wanted`."""
        with torch.device("meta"):
            network = self.build(arguments)
        variant = arguments["variant"]
        title = f"selfie segmentation, {variant}"
        check = partial(check_entries, network=network, title=title)
        return Wanted(title, f"selfie_{variant}.safetensors", variant, (source(variant),), check)

    def model_name(self, arguments: Arguments) -> str:
        """``selfie_general`` or ``selfie_landscape``; see :meth:`NetworkFamily.model_name`."""
        return f"selfie_{arguments.get('variant', 'unknown')}"

    def partition(self, arguments: Arguments) -> dict[str, Any]:
        """See :meth:`NetworkFamily.partition`."""
        return {
            "blocks": ["stem", "encoder.*", "head", "decoder.*", "project"],
            "edge_layers": ["stem.conv", "project.conv"],
        }

    def downloads(self) -> dict[str, Arguments]:
        """The arguments of ``selfie_general`` and ``selfie_landscape``; see :meth:`NetworkFamily.downloads`."""
        return {f"selfie_{variant}": {"variant": variant} for variant in SIZES}
