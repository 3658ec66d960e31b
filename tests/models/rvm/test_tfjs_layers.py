from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ptq4vm.errors import WeightsError
from ptq4vm.models.rvm.network import RVM
from ptq4vm.models.rvm.tfjs import convert

PREFIX = "wrapper/StatefulPartitionedCall"


def to_tensorflow(network: RVM) -> dict[str, np.ndarray]:
    """What TensorFlow would store: HWIO kernels, folded batch norms, three of them left unfolded, numbered layers."""
    weights: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    modules = [m for name, m in network.named_modules() if not name.startswith(("project_seg", "refiner"))]
    convs = [m for m in modules if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    for index, conv in enumerate(convs):
        if not isinstance(conv, nn.Conv2d):
            continue
        norm = convs[index + 1] if index + 1 < len(convs) and conv.bias is None else None
        norm = norm if isinstance(norm, nn.BatchNorm2d) else None
        kind, order = ("conv2d", (2, 3, 1, 0)) if conv.groups == 1 else ("depthwise_conv2d", (2, 3, 0, 1))
        suffix = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        scope = f"{PREFIX}/block_{index}"
        layer = f"{scope}/{kind}{suffix}"
        kernel = conv.weight.detach()
        part = "Conv2D" if conv.groups == 1 else "depthwise"
        if norm is None:
            weights[f"{layer}/{part}/ReadVariableOp"] = kernel.permute(order).numpy()
            if conv.bias is not None:
                weights[f"{layer}/BiasAdd/ReadVariableOp"] = conv.bias.detach().numpy()
            continue
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        offset = (norm.bias - norm.running_mean * scale).detach().numpy()
        if conv.dilation == (2, 2):
            weights[f"{layer}/{part}/ReadVariableOp"] = kernel.permute(order).numpy()
            weights[f"{scope}/batch_normalization_{index}/FusedBatchNormV3/Scaled"] = scale.numpy()
            weights[f"{scope}/batch_normalization_{index}/FusedBatchNormV3/Offset"] = offset
        else:
            weights[f"{layer}/{part}_weights"] = (kernel * scale.view(-1, 1, 1, 1)).permute(order).numpy()
            weights[f"{layer}/{part}_bn_offset"] = offset
    return weights


@torch.no_grad()
def test_converted_network_computes_the_same(mobilenet: RVM) -> None:
    original = RVM("mobilenetv3", "fast_guided_filter").eval()
    state = {k: v for k, v in mobilenet.state_dict().items() if not k.startswith("refiner.")}
    original.load_state_dict(state)
    converted = RVM("mobilenetv3", "fast_guided_filter").eval()
    weights = to_tensorflow(original)
    assert sum(key.endswith("Scaled") for key in weights) == 3
    converted.load_state_dict(convert(weights), strict=True)
    clip = torch.rand(1, 2, 3, 48, 64)
    for ours, theirs in zip(converted(clip), original(clip), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_segmentation_head_is_zero(mobilenet: RVM) -> None:
    state = convert(to_tensorflow(mobilenet))
    assert not state["project_seg.conv.weight"].any()
    assert not state["project_seg.conv.bias"].any()


def test_missing_layer(mobilenet: RVM) -> None:
    weights = to_tensorflow(mobilenet)
    del weights[next(key for key in weights if "/conv2d_47/" in key)]
    with pytest.raises(WeightsError, match=r"has nothing for aspp\.aspp1\.0\.weight"):
        convert(weights)


def test_another_shape(mobilenet: RVM) -> None:
    weights = to_tensorflow(mobilenet)
    key = next(key for key in weights if "/conv2d_62/" in key)
    weights[key] = weights[key][..., :1]
    with pytest.raises(WeightsError, match=r"\(1, 16, 1, 1\) for project_mat\.conv\.weight \(4, 16, 1, 1\)"):
        convert(weights)


def test_state_dict_is_float32(mobilenet: RVM) -> None:
    state: dict[str, Tensor] = convert(to_tensorflow(mobilenet))
    assert {v.dtype for k, v in state.items() if not k.endswith("num_batches_tracked")} == {torch.float32}
    assert all(value.is_contiguous() for value in state.values())
