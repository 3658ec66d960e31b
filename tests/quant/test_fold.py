from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from networks import random_rvm, tiny_matting
from ptq4vm.errors import ConfigError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.quant.fold import fold_batch_norm

FLOAT_MODULES = ("refiner", "project_seg")


def _double(network: MattingNetwork) -> MattingNetwork:
    return network.double()


@torch.no_grad()
def _assert_same(first: MattingNetwork, second: MattingNetwork, size: int, ratio: float = 1.0) -> None:
    frames = torch.rand(1, 2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(first(frames, downsample_ratio=ratio), second(frames, downsample_ratio=ratio), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_folded_tiny_network_computes_the_same() -> None:
    network = _double(tiny_matting())
    folded = fold_batch_norm(copy.deepcopy(network))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert folded.stem.conv.bias is not None
    _assert_same(network, folded, 16)


@pytest.mark.parametrize("variant", ["mobilenetv3", "resnet50"])
def test_folded_rvm_computes_the_same(variant: str) -> None:
    network = _double(random_rvm(variant))
    folded = fold_batch_norm(copy.deepcopy(network), FLOAT_MODULES)
    left = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left and all(name.startswith("refiner.") for name in left)
    _assert_same(network, folded, 64, 0.5)


def test_kept_modules_are_not_touched() -> None:
    network = tiny_matting()
    folded = fold_batch_norm(copy.deepcopy(network), keep=("body", "stem.norm"))
    assert isinstance(folded.body[1], nn.BatchNorm2d) and isinstance(folded.stem.norm, nn.BatchNorm2d)
    assert torch.equal(folded.body[0].weight, network.body[0].weight)


def test_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="eval"):
        fold_batch_norm(tiny_matting().train())


@pytest.mark.parametrize("layers", [[nn.BatchNorm2d(3)], [nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)]])
def test_batch_norm_without_convolution_is_refused(layers: list[nn.Module]) -> None:
    with pytest.raises(ConfigError, match="follows no convolution"):
        fold_batch_norm(nn.Sequential(*layers).eval())
