"""Evaluation of a matting network on streamed clips."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from ptq4vm.errors import ConfigError, DataError, TrainingError
from ptq4vm.evaluation.results import EvaluationResult, join_chunks
from ptq4vm.metrics.functional import METRIC_NAMES, FramePair, frame_metrics, last_frames
from ptq4vm.models.base import MattingNetwork
from ptq4vm.system.trainers import interruptible
from ptq4vm.types import ClipList, EvalChunk, States

logger = logging.getLogger(__name__)

_IN_FLIGHT = 3  # chunks whose metrics may still be computing while the network goes on

# Inference mode is a thread's own: without it, in-place work on what the network returned is refused.
_measure_in_thread = torch.inference_mode()(frame_metrics)


class FrameObserver(Protocol):
    """Someone who sees what a network predicts while it is evaluated, to draw pictures for example."""

    def on_frames(
        self, clip_index: int, start: int, frames: Tensor, true_alpha: Tensor, alpha: Tensor, foreground: Tensor
    ) -> None:
        """Take consecutive frames of a clip; calls come clip after clip, in order.

        Args:
            clip_index: Position of the clip in the evaluation list.
            start: Index of the first of these frames in the clip.
            frames: ``(t, 3, H, W)`` uint8 composite.
            true_alpha: ``(t, 1, H, W)`` uint8.
            alpha: Predicted, ``(t, 1, H, W)`` float32 in [0, 1].
            foreground: Predicted, ``(t, 3, H, W)`` in [0, 1].

        All tensors are valid during the call only; keep copies.
        """
        ...


class EvaluationSource(Protocol):
    """A datamodule as :func:`evaluate` needs it: it lists its evaluation clips and streams them in chunks."""

    @property
    def evaluation_clips(self) -> ClipList:
        """The clips, in the order of :attr:`EvalChunk.clip`."""
        ...

    def setup(self, stage: str | None = None) -> None:
        """List and check the clips."""
        ...

    def test_dataloader(self) -> DataLoader[EvalChunk]:
        """Stream the clips."""
        ...


class MattingEvaluation(pl.LightningModule):
    """A module for ``Trainer.test`` on one device: runs a network over clips streamed in chunks, measures every frame.

    Recurrent states are carried from chunk to chunk and dropped at the start of a clip. Metrics are computed in a
    thread beside the network, on the CPU.

    Args:
        network: The matting network.
        clip_names: Name of each clip, by :attr:`EvalChunk.clip`.
        downsample_ratio: Size at which the network itself runs, as a fraction of the frames' size, in (0, 1].
        observers: Those who are shown every prediction.
        metric_threads: Threads that compute metrics; 0 computes them between the network's steps.
        metrics: Names of the metrics of alpha; those of one of :data:`ptq4vm.metrics.METRIC_SETS`.
        foreground: Whether the foreground is measured too, of clips whose true foreground is known.

    Raises:
        ConfigError: The ratio or the number of threads is out of range.
    """

    def __init__(
        self,
        network: MattingNetwork,
        clip_names: Sequence[str],
        downsample_ratio: float = 1.0,
        observers: Sequence[FrameObserver] = (),
        metric_threads: int = 1,
        metrics: Sequence[str] = METRIC_NAMES,
        foreground: bool = False,
    ) -> None:
        super().__init__()
        if not 0.0 < downsample_ratio <= 1.0:
            raise ConfigError(f"downsample_ratio must be in (0, 1], not {downsample_ratio}")
        if metric_threads < 0:
            raise ConfigError(f"metric_threads must be at least 0, not {metric_threads}")
        self.network = network
        self.clip_names = tuple(clip_names)
        self.downsample_ratio = downsample_ratio
        self.observers = tuple(observers)
        self.metric_threads = metric_threads
        self.metrics = tuple(metrics)
        self.foreground = foreground
        self._results: EvaluationResult | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._states: States = ()
        self._previous: FramePair | None = None
        self._at = (-1, 0)  # clip, frame that must come next
        self._seen_last = True
        self._pending: deque[tuple[int, Future[dict[str, Tensor]]]] = deque()
        self._values: dict[int, list[dict[str, Tensor]]] = {}

    @property
    def results(self) -> EvaluationResult:
        """The metrics of the last test run. Raises :class:`ConfigError` before the first one has ended."""
        if self._results is None:
            raise ConfigError("there are no evaluation results yet; call Trainer.test first")
        return self._results

    def on_test_epoch_start(self) -> None:
        """Forget the run before, which may have ended in an error."""
        self.teardown("test")
        if self.metric_threads:
            self._pool = ThreadPoolExecutor(self.metric_threads, thread_name_prefix="metrics")

    def test_step(self, batch: EvalChunk, batch_idx: int) -> None:
        """Predict one chunk and queue its metrics.

        Raises:
            DataError: A chunk is out of order or of an unknown clip.
            TrainingError: The prediction holds NaN or infinity.
        """
        chunk = batch
        self._advance(chunk)
        source = chunk.frames.unsqueeze(0).float() / 255.0
        foreground, alpha, self._states = self.network.matte(source, self._states, self.downsample_ratio)
        alpha = self._finite(alpha[0].float().cpu(), chunk).clamp_(0.0, 1.0)
        true = chunk.alpha.cpu()
        colours = None
        if self.foreground and chunk.foreground is not None:
            colours = foreground[0].float().cpu().clamp(0.0, 1.0), chunk.foreground.cpu()
        self._measure(chunk.clip, alpha, true, colours)
        if self.observers:
            frames, foreground = chunk.frames.cpu(), foreground[0].float().cpu().clamp(0.0, 1.0)
            for observer in self.observers:
                observer.on_frames(chunk.clip, chunk.start, frames, true, alpha, foreground)

    def on_test_epoch_end(self) -> None:
        """Gather the results and log ``test/<metric>``."""
        while self._pending:
            self._collect()
        if not self._values:
            raise DataError("there was nothing to evaluate; check the evaluation clips")
        frames = {self.clip_names[clip]: join_chunks(parts) for clip, parts in self._values.items()}
        self._results = EvaluationResult.from_frames(frames)
        self.log_dict({f"test/{name}": value for name, value in self._results.mean.items()}, batch_size=1)

    def teardown(self, stage: str) -> None:
        """Let the metric threads go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._begin()

    def _begin(self) -> None:
        self._states = ()
        self._previous = None
        self._at = (-1, 0)
        self._seen_last = True
        self._pending.clear()
        self._values = {}

    def _advance(self, chunk: EvalChunk) -> None:
        """Check that a chunk continues the stream; drop the states where a clip starts."""
        if not 0 <= chunk.clip < len(self.clip_names):
            raise DataError(f"evaluation chunk of clip {chunk.clip}, but only {len(self.clip_names)} clips are named")
        name = self.clip_names[chunk.clip]
        if chunk.start == 0:
            if chunk.clip in self._values or not self._seen_last:
                raise DataError(f"evaluation clip {name} starts while another is open or twice; do not shuffle")
            self._states, self._previous = (), None
            self._values[chunk.clip] = []
        elif (chunk.clip, chunk.start) != self._at:
            raise DataError(f"evaluation clip {name} goes on at frame {chunk.start} out of order; do not shuffle")
        self._at = (chunk.clip, chunk.start + len(chunk.frames))
        self._seen_last = chunk.last

    def _finite(self, alpha: Tensor, chunk: EvalChunk) -> Tensor:
        if not bool(torch.isfinite(alpha).all()):
            broken = chunk.start + int((~torch.isfinite(alpha)).flatten(1).any(dim=1).int().argmax())
            raise TrainingError(
                f"the network predicts NaN or infinity at frame {broken} of clip {self.clip_names[chunk.clip]}; "
                "check the weights and quantizer scales, or run in 32 bit precision"
            )
        return alpha

    def _measure(self, clip: int, alpha: Tensor, true: Tensor, colours: tuple[Tensor, Tensor] | None) -> None:
        previous, self._previous = self._previous, last_frames(alpha, true)
        work = (alpha, true, previous, self.metrics, colours)
        if self._pool is None:
            self._values[clip].append(frame_metrics(*work))
            return
        self._pending.append((clip, self._pool.submit(_measure_in_thread, *work)))
        if len(self._pending) > _IN_FLIGHT:
            self._collect()

    def _collect(self) -> None:
        clip, future = self._pending.popleft()
        self._values[clip].append(future.result())


def evaluate(
    network: MattingNetwork,
    datamodule: EvaluationSource,
    trainer: pl.Trainer | None = None,
    downsample_ratio: float = 1.0,
    observers: Sequence[FrameObserver] = (),
    progress: bool = True,
    metrics: Sequence[str] = METRIC_NAMES,
    foreground: bool = False,
) -> EvaluationResult:
    """Evaluate a network on a datamodule's evaluation clips.

    Args:
        network: The matting network. On a CPU, ``network.to(memory_format=torch.channels_last)`` is faster.
        datamodule: The datamodule that streams the clips.
        trainer: The Trainer that runs the test; a quiet one on one device when not given.
        downsample_ratio: Size at which the network itself runs, as a fraction of the frames' size, in (0, 1].
        observers: Those who are shown every prediction.
        progress: Whether the trainer that is made here shows a progress bar.
        metrics: Names of the metrics of alpha; see :class:`MattingEvaluation`.
        foreground: Whether the foreground is measured too, where the true one is known.

    Returns:
        Metrics per clip and their means.

    Raises:
        DataError: There is no evaluation clip, or one is damaged.
        TrainingError: A prediction holds NaN or infinity.
        ConfigError: The ratio is out of range.
    """
    if trainer is None:
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            callbacks=[RichProgressBar()] if progress else None,
            inference_mode=True,
        )
    # The loader rather than the datamodule: Trainer.test would also run prepare_data, which is about calibration.
    datamodule.setup("test")
    names = [clip.name for clip in datamodule.evaluation_clips]
    module = MattingEvaluation(network, names, downsample_ratio, observers, metrics=metrics, foreground=foreground)
    with interruptible(trainer):
        trainer.test(module, dataloaders=datamodule.test_dataloader(), verbose=False)
    return module.results
