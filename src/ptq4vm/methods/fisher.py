"""Diagonal Fisher information of block outputs, the weights of BRECQ's block reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from ptq4vm.methods.gac import alpha_loss
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.tree import tree_leaves, tree_map
from ptq4vm.quant.capture import TensorStore

_LARGEST = 6e4  # weights are kept in half precision


@dataclass(frozen=True)
class FisherWeights:
    """Squared gradients of the alpha loss with respect to every block's output (BRECQ, Li et al., ICLR 2021, eq. 10).

    The gradient is that of the float network's squared alpha error against the truth, taken for each clip. Weights of
    a block are divided by their mean, so that a block's loss keeps its size.

    Attributes:
        frames: ``(N, T, 3, H, W)`` float in [0, 1].
        alpha: True alpha, ``(N, T, 1, H, W)`` float in [0, 1].
        damping: Share of the plain squared error: ``weight = damping + (1 - damping) * fisher / mean(fisher)``.
    """

    frames: Tensor
    alpha: Tensor
    damping: float = 0.1

    def __call__(
        self, teacher: MattingNetwork, blocks: Sequence[str], clips: int, store: TensorStore
    ) -> dict[str, list[Any]]:
        """Weights ``float16`` by block path: for each chunk of ``clips`` clips a tree of the form of its output."""
        squares: dict[str, list[Any]] = {path: [] for path in blocks}
        for frames, alpha in track(
            list(zip(self.frames.split(1), self.alpha.split(1), strict=True)),
            description="Fisher information",
            transient=True,
        ):
            for path, tree in self._squares(teacher, blocks, frames, alpha).items():
                squares[path].append(tree_map(store.keep, tree))
        return {path: self._weights(squares.pop(path), clips, store) for path in blocks}

    def _squares(self, teacher: MattingNetwork, blocks: Sequence[str], frames: Tensor, alpha: Tensor) -> dict[str, Any]:
        """Squared gradients of one clip."""
        device = next(teacher.parameters()).device
        with torch.enable_grad(), _retained(teacher, blocks) as outputs:
            loss = alpha_loss(teacher.matte(frames.to(device).requires_grad_()).alpha, alpha.to(device))
            loss.backward()
        return {path: tree_map(_squared_gradient, tree) for path, tree in outputs.items()}

    def _weights(self, clips: list[Any], chunk: int, store: TensorStore) -> list[Any]:
        leaves = [leaf for tree in clips for leaf in tree_leaves(tree)]
        mean = sum(float(leaf.double().sum()) for leaf in leaves) / sum(leaf.numel() for leaf in leaves)
        factor = (1 - self.damping) / mean if mean > 0 else 0.0  # the float network is right everywhere: no weighting
        floor = self.damping if mean > 0 else 1.0

        def weight(*parts: Tensor) -> Tensor:
            return store.keep((torch.cat(parts) * factor + floor).clamp_max(_LARGEST).half())

        return [tree_map(weight, *clips[i : i + chunk]) for i in range(0, len(clips), chunk)]


def _squared_gradient(output: Tensor) -> Tensor:
    return torch.zeros_like(output) if output.grad is None else output.grad.square()


@contextmanager
def _retained(network: nn.Module, blocks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect the outputs of blocks by path, each with its gradient kept."""
    outputs: dict[str, Any] = {}

    def keep(path: str, output: Any) -> None:
        outputs[path] = output
        for leaf in tree_leaves(output):
            if leaf.requires_grad:
                leaf.retain_grad()

    with ExitStack() as hooks:
        for path in blocks:
            block = network.get_submodule(path)
            hooks.enter_context(block.register_forward_hook(lambda m, args, out, path=path: keep(path, out)))
        yield outputs
