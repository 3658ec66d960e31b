"""RAFT (Teed and Deng, 2020) from torchvision, which is optional."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptq4vm.errors import ConfigError, WeightsError
from ptq4vm.flow.base import FLOWS, TwoWayFlow

_VARIANTS = ("raft_small", "raft_large")
_STRIDE = 8  # RAFT works on features of an eighth of the size
_SMALLEST = 128  # below, its correlation pyramid would be empty


@FLOWS.register("raft")
class RAFTFlow:
    """Estimates flow by recurrent all-pairs field transforms, a network of torchvision's.

    Args:
        variant: ``raft_small`` or ``raft_large``.
        weights: File of a state dict; torchvision's own download and cache when not given.
        iterations: How many refinement steps the network takes, at least 1.
        device: Where the network runs; the flow comes back on the CPU.
        build: Gives the network, called once when flow is first estimated. For networks of one's own, and for tests;
            ``variant`` is then only a label.

    Raises:
        ConfigError: The variant is unknown, or torchvision is not importable.
        WeightsError: The file of weights does not exist.
    """

    def __init__(
        self,
        variant: str = "raft_large",
        weights: str | Path | None = None,
        iterations: int = 12,
        device: str = "cpu",
        build: Callable[[], nn.Module] | None = None,
    ) -> None:
        if build is None:
            if variant not in _VARIANTS:
                raise ConfigError(f"unknown RAFT variant {variant!r}; choose one of {', '.join(_VARIANTS)}")
            _require_torchvision()
        self.variant = variant
        self.weights = None if weights is None else Path(weights).expanduser()
        if self.weights is not None and not self.weights.is_file():
            raise WeightsError(f"RAFT weights {self.weights} do not exist; give a state dict's path, or none")
        self.iterations = iterations
        self.device = torch.device(device)
        self._build = build
        self._network: nn.Module | None = None

    @property
    def name(self) -> str:
        """The provider and its settings as one string, part of the cache key."""
        return f"raft-{self.variant}-{self._weights_label}-{self.iterations}"

    @cached_property
    def _weights_label(self) -> str:
        if self.weights is None:
            return "default"
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()[:16]

    @torch.no_grad()
    def estimate(self, frames: Tensor) -> TwoWayFlow:
        """Flow between consecutive frames. ``frames``: ``(T, 3, H, W)`` uint8 RGB with T at least 2.

        Raises:
            WeightsError: The weights cannot be downloaded, read or do not fit.
        """
        network = self._load()
        height, width = frames.shape[-2:]
        images = frames.to(self.device).float().div(127.5).sub(1)
        right, bottom = (max(_SMALLEST, -(-side // _STRIDE) * _STRIDE) - side for side in (width, height))
        images = F.pad(images, (0, right, 0, bottom), mode="replicate")
        # Pair by pair: memory then does not grow with the clip.
        pairs = [(images[i : i + 1], images[i + 1 : i + 2]) for i in range(len(images) - 1)]
        backward = [self._flow(network, after, before) for before, after in pairs]
        forward = [self._flow(network, before, after) for before, after in pairs]
        crop = (..., slice(height), slice(width))
        return TwoWayFlow(torch.cat(backward)[crop].contiguous(), torch.cat(forward)[crop].contiguous())

    def _flow(self, network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        flow: Tensor = network(first, second, num_flow_updates=self.iterations)[-1]
        return flow.float().cpu()

    def _load(self) -> nn.Module:
        if self._network is None:
            network = self._build() if self._build is not None else _torchvision_raft(self.variant, self.weights)
            self._network = network.eval().to(self.device)
        return self._network


def _require_torchvision() -> None:
    try:
        import torchvision.models.optical_flow  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ConfigError(
            f"flow=raft needs torchvision, which cannot be imported ({str(error).splitlines()[0]}); "
            "install the extra ptq4vm[raft] or use flow=dis"
        ) from error


def _torchvision_raft(variant: str, weights: Path | None) -> nn.Module:
    from torchvision.models import get_model

    try:
        if weights is None:
            return get_model(variant, weights="DEFAULT")
        network = get_model(variant, weights=None)
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        where = "torchvision's download" if weights is None else str(weights)
        raise WeightsError(f"RAFT weights from {where} cannot be loaded: {str(error).splitlines()[0]}") from error
    return network
