"""Keeps a few small pictures of every evaluation clip while networks are evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ptq4vm.errors import ConfigError
from ptq4vm.report.canvas import Bytes, resize_to_width


@dataclass
class FramePictures:
    """The pictures that are kept of one frame, all uint8 and scaled down together.

    Attributes:
        frame: Index of the frame in its clip.
        image: Input, ``(h, w, 3)`` RGB.
        truth: True alpha, ``(h, w)``.
        alphas: Stage to predicted alpha, ``(h, w)``.
        foregrounds: Stage to predicted foreground, ``(h, w, 3)`` RGB.
    """

    frame: int
    image: Bytes
    truth: Bytes
    alphas: dict[str, Bytes] = field(default_factory=dict)
    foregrounds: dict[str, Bytes] = field(default_factory=dict)


class SheetCollector:
    """Gathers a few frames of each clip, evenly spread, for any number of stages, in bounded memory.

    The length of a clip is not known beforehand: every ``stride``-th frame is kept, and when there are more than four
    times as many as asked for, the stride doubles and half of them go. The choice depends on the clip's length alone,
    so every stage keeps the same frames.

    Args:
        clip_names: Name of each clip, by its index in the evaluation list.
        rows: Frames to keep of a clip, at least 1.
        width: Pictures are scaled down to this width, pixels; smaller ones stay as they are.
        still_width: The same for a clip's still, its last frame, which is for looking at closely.

    Raises:
        ConfigError: A number is out of range.

    Memory: ``4 + 4 * stages`` bytes a pixel and ``rows`` pictures a clip, four times the rows for the clip in progress;
    ``4 + stages`` bytes a pixel for the still.
    """

    def __init__(self, clip_names: Sequence[str], rows: int = 4, width: int = 320, still_width: int = 640) -> None:
        if min(rows, width, still_width) < 1:
            raise ConfigError(
                f"contact sheets need rows and widths of at least 1, not {rows}, {width} and {still_width}"
            )
        self.clip_names = tuple(clip_names)
        self.rows = rows
        self.width = width
        self.still_width = still_width
        self._kept: dict[str, dict[int, FramePictures]] = {}
        self._stills: dict[str, FramePictures] = {}

    def observer(self, stage: str, foreground: bool = True) -> StageObserver:
        """An observer for :func:`ptq4vm.evaluation.evaluator.evaluate` that files pictures under ``stage``.

        Args:
            stage: Name of the stage, of your choice.
            foreground: Whether the predicted colours are kept too; only the network that is composited needs them.
        """
        return StageObserver(self, stage, foreground)

    def clips(self, *stages: str) -> list[str]:
        """Names of the clips of which every stage has been seen, in evaluation order.

        Raises:
            ConfigError: There is none.
        """
        names = [name for name in self.clip_names if name in self._kept and self._seen(name, stages)]
        if not names:
            raise ConfigError(f"no clip was watched in every one of these stages: {', '.join(stages)}")
        return names

    def has(self, *stages: str) -> bool:
        """Tell whether at least one clip was watched in every one of these stages."""
        return any(self._seen(name, stages) for name in self._kept)

    def pictures(self, clip: str, *stages: str) -> list[FramePictures]:
        """At most ``rows`` frames of a clip, evenly spread, that every stage has."""
        frames = [frame for frame, kept in self._kept[clip].items() if all(s in kept.alphas for s in stages)]
        return [self._kept[clip][frame] for frame in _evenly(sorted(frames), self.rows)]

    def still(self, clip: str, *stages: str) -> FramePictures | None:
        """The last frame of a clip, larger and without foregrounds; ``None`` when not every stage has shown it."""
        found = self._stills.get(clip)
        return found if found is not None and all(stage in found.alphas for stage in stages) else None

    def _seen(self, clip: str, stages: Iterable[str]) -> bool:
        return any(all(stage in kept.alphas for stage in stages) for kept in self._kept[clip].values())

    def _add(self, clip: str, frame: int, image: Tensor, truth: Tensor) -> FramePictures:
        kept = self._kept.setdefault(clip, {})
        if frame not in kept:
            kept[frame] = FramePictures(frame, self._small(image), self._small(truth))
        return kept[frame]

    def _add_still(self, clip: str, frame: int, image: Tensor, truth: Tensor, stage: str, alpha: Tensor) -> None:
        """Keep what a stage shows of a frame, unless a later one is known; the length of a clip is not."""
        kept = self._stills.get(clip)
        if kept is None or frame > kept.frame:
            kept = FramePictures(frame, self._small(image, self.still_width), self._small(truth, self.still_width))
            self._stills[clip] = kept
        if frame == kept.frame:
            kept.alphas[stage] = self._small(alpha, self.still_width)

    def _drop(self, clip: str, frame: int, stage: str) -> None:
        """Forget what a stage showed of a frame; the frame itself goes with the last stage that has it."""
        kept = self._kept[clip][frame]
        kept.alphas.pop(stage, None)
        kept.foregrounds.pop(stage, None)
        if not kept.alphas:
            del self._kept[clip][frame]

    def _small(self, image: Tensor, width: int | None = None) -> Bytes:
        """``(C, H, W)`` uint8 or float in [0, 1] to ``(h, w)`` or ``(h, w, 3)`` uint8, at most ``width`` wide."""
        if image.is_floating_point():
            image = image.mul(255.0).round().byte()
        array = np.array(image.permute(1, 2, 0).squeeze(-1).numpy(), order="C")  # a copy: the chunk goes away
        return resize_to_width(array, min(width or self.width, array.shape[1]))


class StageObserver:
    """Files what one network predicts in a :class:`SheetCollector`; one evaluation run each."""

    def __init__(self, collector: SheetCollector, stage: str, foreground: bool) -> None:
        self._collector = collector
        self._stage = stage
        self._foreground = foreground
        self._clip = ""
        self._stride = 1
        self._frames: list[int] = []

    def on_frames(
        self, clip_index: int, start: int, frames: Tensor, true_alpha: Tensor, alpha: Tensor, foreground: Tensor
    ) -> None:
        """Keep some of these frames; see :class:`ptq4vm.evaluation.evaluator.FrameObserver`."""
        if start == 0:
            self._finish()
            self._clip, self._stride, self._frames = self._collector.clip_names[clip_index], 1, []
        for offset, frame in enumerate(range(start, start + len(frames))):
            if frame % self._stride:
                continue
            kept = self._collector._add(self._clip, frame, frames[offset], true_alpha[offset])
            kept.alphas[self._stage] = self._collector._small(alpha[offset])
            if self._foreground:
                kept.foregrounds[self._stage] = self._collector._small(foreground[offset])
            self._frames.append(frame)
            if len(self._frames) > 4 * self._collector.rows:
                self._stride *= 2
                self._thin([frame for frame in self._frames if frame % self._stride == 0])
        last = start + len(frames) - 1
        self._collector._add_still(self._clip, last, frames[-1], true_alpha[-1], self._stage, alpha[-1])

    def _finish(self) -> None:
        if self._frames:
            self._thin(_evenly(self._frames, self._collector.rows))

    def _thin(self, frames: list[int]) -> None:
        for frame in set(self._frames) - set(frames):
            self._collector._drop(self._clip, frame, self._stage)
        self._frames = frames


def _evenly(frames: Sequence[int], count: int) -> list[int]:
    """``count`` of ``frames`` from the first to the last; all when there are fewer."""
    if len(frames) <= count:
        return list(frames)
    return [frames[int(index)] for index in np.linspace(0, len(frames) - 1, count).round()]
