"""Evaluation clips cut into chunks."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from ptq4vm.types import ClipSource, EvalChunk


class EvaluationData(Dataset[EvalChunk]):
    """Chunks of evaluation clips, clip after clip and in the order of their frames."""

    def __init__(self, clips: Sequence[ClipSource], chunk: int) -> None:
        self._clips = clips
        self._chunks = [
            (index, start, min(start + chunk, clip.num_frames))
            for index, clip in enumerate(clips)
            for start in range(0, clip.num_frames, chunk)
        ]

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, index: int) -> EvalChunk:
        """Decode chunk ``index``. Raises :class:`DataError`."""
        number, start, stop = self._chunks[index]
        source = self._clips[number]
        clip = source.read(start, stop)
        return EvalChunk(number, start, stop == source.num_frames, clip.frames, clip.alpha, clip.foreground)
