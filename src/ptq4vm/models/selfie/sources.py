"""Where the weights of selfie segmentation are: the graphs in MediaPipe's own npm package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ptq4vm.models.selfie.tflite import convert
from ptq4vm.models.weights.sources import NpmPackage

PACKAGE = "@mediapipe/selfie_segmentation@0.1.1675465747"
_MEGABYTES = 6
_GRAPHS = {
    "general": ("selfie_segmentation.tflite", "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27"),
    "landscape": (
        "selfie_segmentation_landscape.tflite",
        "4aafe6223bb8dac6fac8ca8ed56852870a33051ef3f6238822d282a109962894",
    ),
}


def source(variant: str) -> NpmPackage:
    """The package, read for one variant: float16 weights in a TensorFlow Lite graph.

    Args:
        variant: ``general`` or ``landscape``.
    """

    def from_graph(files: Sequence[Path]) -> dict[str, Tensor]:
        return convert(files[0], variant)

    return NpmPackage(PACKAGE, _MEGABYTES, dict([_GRAPHS[variant]]), (variant,), from_graph)
