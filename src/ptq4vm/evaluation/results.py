"""What an evaluation gives: metrics of frames, of clips, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptq4vm.errors import ConfigError
from ptq4vm.metrics.table import METRIC_SETS

if TYPE_CHECKING:
    from torch import Tensor

FrameValues = Mapping[str, tuple[float, ...]]
"""Metric name to the value of every frame of a clip."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of one network on a set of clips.

    Attributes:
        mean: Metric name to the unweighted mean over the clips that have it: all of them, but for ``fgr_mse``, which
            needs a true foreground.
        clips: Clip name to metric name to the mean over the clip's frames.
        frames: Clip name to metric name to the value of every frame; empty where only means were stored.
    """

    mean: dict[str, float]
    clips: dict[str, dict[str, float]]
    frames: dict[str, dict[str, tuple[float, ...]]]

    @classmethod
    def from_frames(cls, frames: dict[str, dict[str, tuple[float, ...]]]) -> EvaluationResult:
        """Average the values of frames over each clip, then over clips."""
        clips = {
            clip: {name: sum(values) / len(values) for name, values in metrics.items()}
            for clip, metrics in frames.items()
        }
        values: dict[str, list[float]] = {}
        for clip in clips.values():
            for name, value in clip.items():
                values.setdefault(name, []).append(value)
        return cls({name: sum(each) / len(each) for name, each in values.items()}, clips, frames)


def metric_set(name: str) -> tuple[str, ...]:
    """Names of the metrics of the set ``lr`` or ``hr``. Raises :class:`ConfigError` for another name."""
    if name not in METRIC_SETS:
        raise ConfigError(f"metrics={name} is unknown: use {' or '.join(METRIC_SETS)}")
    return METRIC_SETS[name]


def join_chunks(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, tuple[float, ...]]:
    """Values ``(t,)`` of consecutive chunks as one tuple for each metric."""
    import torch  # late: a report reads results without

    return {name: tuple(torch.cat([part[name] for part in parts]).tolist()) for name in parts[0]}
