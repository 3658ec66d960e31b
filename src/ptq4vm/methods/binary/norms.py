"""Statistics of batch norms while a network is trained: followed, or measured anew."""

from __future__ import annotations

from torch import nn

FOLLOW, MEASURE = MODES = ("follow", "measure")
"""Batches are normalised by themselves and their statistics followed by a running mean; or the same with the mean of
all batches, while nothing is learned."""


class NormStatistics:
    """What happens to the statistics of a network's batch norms in one stage of training.

    Running means are of what was trained on, such as small pictures or crops, and they lag behind: RVM's encoder takes
    a hundred steps to forget what it began with, and a short training has not many more. A binary network sees nothing
    of a feature but its sign, and wrong statistics push all of them to one side.

    Args:
        network: In whose batch norms they are.
        mode: One of :data:`MODES`.
    """

    def __init__(self, network: nn.Module, mode: str) -> None:
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._mode = mode
        self._momenta: list[float | None] = []

    def begin(self, anew: bool) -> None:
        """Prepare the norms for the stage.

        Args:
            anew: Whether the stage begins; otherwise it goes on, and what was measured counts.
        """
        if self._mode != MEASURE:
            return
        self._momenta = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = None  # PyTorch's sign for the mean of all batches
            if anew:
                norm.reset_running_stats()

    def end(self) -> None:
        """Give the norms their momentum back."""
        for norm, momentum in zip(self._norms, self._momenta, strict=False):
            norm.momentum = momentum
        self._momenta = []
