"""Whether an exported file computes what its fake-quantized network computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptq4vm.deploy.engines.onnx import OnnxEngine
from ptq4vm.deploy.engines.openvino import OpenVinoEngine
from ptq4vm.deploy.engines.step import StepEngine
from ptq4vm.deploy.layers import Deviation, deviations
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.models.base import MattingNetwork
from ptq4vm.types import Clip, States

LARGEST_DIFFERENCE = 2 / 255
"""Of alpha, on average over all pixels and frames."""
LARGEST_MAD_CHANGE = 0.02
"""Relative to the fake-quantized network's."""


@dataclass(frozen=True)
class Parity:
    """How close an exported file is to its network over a clip.

    Attributes:
        frames: How many were compared, with states carried from one to the next.
        mean: Mean absolute difference of alpha, in [0, 1].
        largest: Largest absolute difference of a pixel's alpha.
        worst: Index of the frame with the largest mean difference.
        mad: Mean absolute error against the truth, times 1000, of the network and of the file.
        layers: Deviation of the layers in the worst frame, in the graph's order; only looked at after a failure.
    """

    frames: int
    mean: float
    largest: float
    worst: int
    mad: tuple[float, float]
    layers: tuple[Deviation, ...] = ()

    @property
    def mad_change(self) -> float:
        """Relative change of the error against the truth."""
        return abs(self.mad[1] - self.mad[0]) / max(self.mad[0], 1e-9)

    @property
    def passed(self) -> bool:
        """Whether both limits hold."""
        return self.mean < LARGEST_DIFFERENCE and self.mad_change <= LARGEST_MAD_CHANGE

    def __str__(self) -> str:
        """One line."""
        text = (
            f"{'passed' if self.passed else 'failed'}: {self.frames} frames, mean alpha difference "
            f"{self.mean * 255:.3f}/255 (limit 2), largest {self.largest * 255:.1f}/255, "
            f"MAD {self.mad[0]:.3f} to {self.mad[1]:.3f} ({self.mad_change:.2%}, limit 2%)"
        )
        if not self.layers:
            return text
        largest = max(self.layers, key=lambda layer: layer.error)
        first = next(layer for layer in self.layers if layer.error >= largest.error / 2)
        text += f"; largest deviation in layer {largest.path} ({largest.error:.1%} of its signal)"
        return text if first is largest else f"{text}, the first half as large in {first.path} ({first.error:.1%})"


def open_engine(file: Path, threads: int | None = None) -> StepEngine:
    """The engine of an exported file, by its suffix.

    Raises:
        ConfigError: Neither ``.onnx`` nor ``.xml``, or the engine's package is not installed.
        ExportError: The file is missing or damaged.
    """
    if file.suffix == ".onnx":
        return OnnxEngine(file, threads)
    if file.suffix == ".xml":
        return OpenVinoEngine(file, threads)
    raise ConfigError(f"{file} is neither .onnx nor .xml: give a file that `ptq4vm export` wrote")


def verify(network: MattingNetwork, engine: StepEngine, clip: Clip) -> Parity:
    """Compare an exported file with the network that it was made from, frame by frame, each with its own states.

    Args:
        network: From :func:`ptq4vm.api.load_checkpoint`.
        engine: Of the file; see :func:`open_engine`.
        clip: Frames of the file's size, with their true alpha.

    Raises:
        DataError: The frames are not of the file's size.
    """
    ratio = engine.downsample_ratio
    engine.reset()
    states: States = ()
    before: list[States] = []
    means: list[float] = []
    largest, errors = 0.0, np.zeros(2)
    for frame, truth in zip(clip.frames, clip.alpha, strict=True):
        before.append(states)
        with torch.no_grad():
            output = network.matte(frame[None].float() / 255, states, ratio)
        states = output.states
        expected = output.alpha[0, 0].numpy()
        alpha = engine.matte(frame.permute(1, 2, 0).numpy()).alpha
        difference = np.abs(alpha - expected)
        means.append(float(difference.mean()))
        largest = max(largest, float(difference.max()))
        wanted = truth[0].numpy() / np.float32(255)
        errors += [np.abs(picture - wanted).mean() for picture in (expected, alpha)]
    count = len(means)
    if not count:
        raise DataError(f"{clip.name} has no frames to compare")
    worst = int(np.argmax(means))
    mads = errors / count * 1e3
    parity = Parity(count, float(np.mean(means)), largest, worst, (float(mads[0]), float(mads[1])))
    if parity.passed:
        return parity
    inputs = _inputs(network, clip.frames[worst], before[worst], ratio)
    layers = deviations(network, engine.file, inputs, ratio, clip.frames[:worst])
    return Parity(count, parity.mean, largest, worst, parity.mad, tuple(layers))


def _inputs(network: MattingNetwork, frame: Tensor, states: States, ratio: float) -> list[Tensor]:
    """A frame and the states before it, zeros before the first."""
    src = frame[None].float() / 255
    if not states:
        with torch.no_grad():
            after = network.matte(src, (), ratio).states
        states = tuple(torch.zeros_like(state) for state in after if state is not None)
    return [src, *(state for state in states if state is not None)]


def moving_portrait(size: tuple[int, int], frames: int) -> Clip:
    """A drawn head and shoulders that sway before a smooth background, with exact alpha; for where no clip is given.

    Args:
        size: ``(H, W)``.
        frames: How many.
    """
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    y, x = rows / height, (columns - width / 2) / height
    random = np.random.default_rng(0)
    background = _smooth(random, size)
    skin, cloth = _smooth(random, size) * 0.15 + (0.75, 0.55, 0.45), _smooth(random, size) * 0.2 + (0.15, 0.2, 0.4)
    pictures, mattes = [], []
    for index in range(frames):
        sway = 0.06 * np.sin(index * 0.25)
        head = _inside(np.hypot((x - sway) / 0.15, (y - 0.36) / 0.2), height * 0.15)
        body = _inside(np.hypot((x - sway / 2) / 0.38, (y - 1.0) / 0.45), height * 0.38)
        alpha = np.maximum(head, body)[..., None]
        person = np.where(head[..., None] > 0.5, skin, cloth)
        pictures.append(alpha * person + (1 - alpha) * np.roll(background, index, 1))
        mattes.append(alpha[..., 0])
    return Clip(
        "moving portrait",
        _bytes(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
        _bytes(np.stack(mattes))[:, None],
    )


def _smooth(random: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """A smooth picture ``(H, W, 3)`` in [0, 1]."""
    coarse = torch.from_numpy(random.random((1, 3, 5, 8), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return fine.clamp(0, 1)[0].permute(1, 2, 0).numpy()


def _inside(distance: NDArray[np.float32], pixels: float) -> NDArray[np.float32]:
    """1 where ``distance`` < 1, 0 outside, with an edge two pixels wide; ``pixels`` is the length of 1."""
    return np.clip((1 - distance) * pixels / 2 + 0.5, 0, 1)


def _bytes(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy((values.clip(0, 1) * 255).round().astype(np.uint8))


def fitted(clip: Clip, size: tuple[int, int] | None) -> Clip:
    """The clip resized to ``(H, W)``, or as it is for ``None``."""
    if size is None or clip.frames.shape[-2:] == size:
        return clip
    frames, alpha = (
        torch.nn.functional.interpolate(x.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for x in (clip.frames, clip.alpha)
    )
    return Clip(clip.name, frames, alpha)
