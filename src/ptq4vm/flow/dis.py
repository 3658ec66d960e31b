"""Dense inverse search flow (Kroeger et al., 2016), OpenCV's implementation: the default."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptq4vm.errors import ConfigError
from ptq4vm.flow.base import FLOWS, TwoWayFlow

Grey = NDArray[np.uint8]

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


@FLOWS.register("dis")
class DISFlow:
    """Dense inverse search on grey frames.

    Args:
        preset: ``ultrafast``, ``fast`` or ``medium``: OpenCV's trade of speed against accuracy.

    Raises:
        ConfigError: The preset is unknown.
    """

    def __init__(self, preset: str = "medium") -> None:
        if preset not in _PRESETS:
            raise ConfigError(f"unknown DIS preset {preset!r}; choose one of {', '.join(_PRESETS)}")
        self.preset = preset

    @property
    def name(self) -> str:
        """The provider and its settings as one string, part of the cache key."""
        return f"dis-{self.preset}"

    def estimate(self, frames: Tensor) -> TwoWayFlow:
        """Flow between consecutive frames. ``frames``: ``(T, 3, H, W)`` uint8 RGB with T at least 2."""
        grey = [cv2.cvtColor(frame.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY) for frame in frames]
        # A fresh object for each call: it holds buffers, which would make the estimator unpicklable.
        algorithm = cv2.DISOpticalFlow.create(_PRESETS[self.preset])
        pairs = list(itertools.pairwise(grey))
        # Without an initial flow, each result is a fresh array and depends on its two frames alone.
        backward = [_calculate(algorithm, after, before) for before, after in pairs]
        forward = [_calculate(algorithm, before, after) for before, after in pairs]
        return TwoWayFlow(_to_tensor(backward), _to_tensor(forward))


def _calculate(algorithm: cv2.DenseOpticalFlow, first: Grey, second: Grey) -> NDArray[np.float32]:
    zero = np.zeros((*first.shape, 2), dtype=np.float32)
    return np.asarray(algorithm.calc(first, second, zero), dtype=np.float32)


def _to_tensor(flows: Sequence[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(flows).transpose(0, 3, 1, 2).copy())
