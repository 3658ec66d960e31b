"""The PyTorch engine: a float or a fake-quantized network as it is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ptq4vm.engines.base import Matte, MattingEngine, automatic_ratio
from ptq4vm.errors import ConfigError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.ops.formats import channels_last
from ptq4vm.types import States


class PyTorchEngine(MattingEngine):
    """Runs a network frame by frame in PyTorch, in the channels-last layout.

    Args:
        network: A float network, or the quantized one of a run folder; put into eval mode and channels last in place.
        downsample_ratio: Fraction of the frame's size at which the network runs, in (0, 1]; its refiner brings the
            result back to full size. ``None``: :func:`automatic_ratio` of every video's size.
        device: Where it runs.

    Raises:
        ConfigError: The ratio is out of range.
    """

    def __init__(
        self, network: MattingNetwork, downsample_ratio: float | None = None, device: torch.device | str = "cpu"
    ) -> None:
        if downsample_ratio is not None and not 0 < downsample_ratio <= 1:
            raise ConfigError(f"downsample_ratio={downsample_ratio:g} is out of range: use auto, or above 0 up to 1")
        self._network = channels_last(network.eval().to(device))
        self._device = torch.device(device)
        self._ratio = downsample_ratio
        self._size: tuple[int, int] | None = None
        self._states: States = ()

    def reset(self) -> None:
        """Forget the frames seen so far."""
        self._states = ()

    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        """Matte the next frame; see :meth:`MattingEngine.matte`."""
        size = (frame.shape[0], frame.shape[1])
        if size != self._size:
            self.reset()
            self._size = size
        ratio = automatic_ratio(size) if self._ratio is None else self._ratio
        with torch.inference_mode():
            # (H, W, 3) in memory is what channels last means: no copy is made but the conversion to float
            pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None]
            output = self._network.matte(pixels.float().div_(255), self._states, ratio)
            self._states = output.states
            alpha = output.alpha[0, 0].float().contiguous().cpu().numpy()
            foreground = output.foreground[0].permute(1, 2, 0).float().contiguous().cpu().numpy()
        return Matte(alpha, foreground)
