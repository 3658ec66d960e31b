"""Alphas of a float network, where they stand for the truth."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ptq4vm.data.base import NeedsTruth
from ptq4vm.errors import TrainingError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.formats import channels_last
from ptq4vm.quant.fold import fold_batch_norm
from ptq4vm.quant.partition import expand
from ptq4vm.quant.spec import Partition
from ptq4vm.types import States


def predictor(network: MattingNetwork, downsample_ratio: float = 1.0) -> Callable[[Iterator[Tensor]], Iterator[Tensor]]:
    """A function from the consecutive chunks of a clip, ``(t, 3, H, W)`` uint8, to alphas ``(t, 1, H, W)`` uint8.

    Recurrent states are carried from chunk to chunk. The function raises :class:`TrainingError` where the network
    predicts NaN or infinity.
    """

    def predict(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        states: States = ()
        for chunk in chunks:
            with torch.inference_mode():
                _, alpha, states = network.matte(chunk[None].float() / 255, states, downsample_ratio)
                if not bool(torch.isfinite(alpha).all()):
                    raise TrainingError("the float network predicts NaN or infinity; check its weights")
                found = (alpha[0].float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
            yield found

    return predict


def fingerprint(network: nn.Module, downsample_ratio: float) -> str:
    """SHA-256 of the network's class, weights and the ratio: a name for what it predicts."""
    digest = hashlib.sha256(f"{type(network).__qualname__}|{downsample_ratio}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def folded(network: MattingNetwork, partition: Partition) -> MattingNetwork:
    """A copy of a float network with its batch norms folded, as it is measured."""
    network = copy.deepcopy(network).eval()
    fold_batch_norm(network, expand(network, partition.float_modules, "float_modules"))
    return channels_last(network)


def make_truth(data: NeedsTruth, network: MattingNetwork, partition: Partition, downsample_ratio: float = 1.0) -> None:
    """Let the float network predict the alpha that stands for the truth; what is there is not made again.

    Raises:
        DataError: A clip is missing or damaged.
        TrainingError: A prediction is not finite.
        SaveError: The alphas cannot be written.
    """
    data.make_truth(predictor(folded(network, partition), downsample_ratio), fingerprint(network, downsample_ratio))
