"""What a reconstruction works on: its units, the order of their samples, and the error that it lowers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from ptq4vm.ops.tree import tree_leaves
from ptq4vm.quant.layers import QuantLayer


class Unit(NamedTuple):
    """What one epoch reconstructs: a block, or a layer of it.

    Attributes:
        block: Module path; empty for the whole network.
        layer: Path inside the block; empty for all of it.
    """

    block: str
    layer: str = ""

    @property
    def path(self) -> str:
        """Path of the unit's module in the network."""
        return ".".join(part for part in self if part)

    @property
    def title(self) -> str:
        """What messages call the unit."""
        if self.layer:
            return f"layer {self.path}"
        return f"block {self.path}" if self.path else "the whole network"


def make_units(quantized: nn.Module, blocks: Sequence[str], unit: str) -> list[Unit]:
    """Units of a quantized network in the order in which they are reconstructed; layers in definition order."""
    if unit == "network":
        return [Unit("")]
    if unit == "block":
        return [Unit(block) for block in blocks]
    return [
        Unit(block, name)
        for block in blocks
        for name, module in quantized.get_submodule(block).named_modules()
        if isinstance(module, QuantLayer)
    ]


def reconstruction_loss(output: Any, target: Any, weight: Any = None) -> Tensor:
    """Squared error summed over channels and averaged over everything else, added over the tensors of the trees.

    This is the block objective of QDrop and PTQ4VM (its equation 3); with weights, a tree of the same form, that of
    BRECQ (its equation 10). Scalar.
    """
    pairs = list(zip(tree_leaves(output), tree_leaves(target), strict=True))
    errors = [(o - t).square() for o, t in pairs]
    if weight is not None:
        errors = [e * w.to(e.dtype) for e, w in zip(errors, tree_leaves(weight), strict=True)]
    return torch.stack([e.mean() * e.shape[-3] for e in errors]).sum()


class StepSampler(Sampler[list[int]]):
    """``steps`` batches of row numbers, reshuffled whenever all rows were used: a pure function of the seed."""

    def __init__(self, rows: int, batch: int, steps: int, seed: int) -> None:
        self.rows, self.batch, self.steps, self.seed = rows, min(batch, rows), steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = []
        for _ in range(self.steps):
            if len(order) < self.batch:
                order = torch.randperm(self.rows, generator=generator).tolist()
            yield order[: self.batch]
            order = order[self.batch :]
