"""Calibration samples with flow, and evaluation clips as a stream, for every stage and every dataset."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ptq4vm.data.augmentation.augment import draw_augmented
from ptq4vm.data.augmentation.recipes import Augmentation
from ptq4vm.data.base import ClipDataset, ClipSets
from ptq4vm.data.calibration.chunks import EvaluationData
from ptq4vm.data.calibration.sampling import CalibrationSample, EpochShuffleSampler, check_numbers, draw_samples, within
from ptq4vm.data.clips.sources import check_has_subject
from ptq4vm.data.cutting import batch, cut_clip, cut_flow
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.flow.base import SourceFlow
from ptq4vm.flow.cache import ClipFlow, FlowCache
from ptq4vm.types import ClipBatch, ClipSource, EvalChunk

logger = logging.getLogger(__name__)


class MattingDataModule(pl.LightningDataModule):
    """Calibration samples from a dataset's calibration clips, and its evaluation clips streamed in chunks.

    Everything random is drawn once, as a function of ``seed``: sample i is the same in every run and epoch, so that
    what a stage caches for it stays valid, and only the order of samples changes from epoch to epoch.

    Args:
        dataset: Where clips come from.
        flow: Where flow comes from; ``None`` leaves it out of the batches.
        clip_length: Frames of a sample.
        crop: ``(h, w)`` of a sample, pixels; whole frames when ``None``.
        clips: Samples to draw.
        batch_size: Samples in a batch.
        hflip: Probability that a sample is mirrored.
        zoom: Enlarge half of the samples by up to this factor; see
            :func:`ptq4vm.data.calibration.sampling.draw_samples`.
        num_workers: Decoding processes of each loader; 0 decodes in this one.
        eval_chunk: Frames of an evaluation chunk.
        memory_mib: Keep decoded samples up to this many MiB; beyond it they are decoded whenever they are used.
        seed: Seed of all that is drawn.
        augmentation: How samples are augmented; flow is then that of the augmented sample.
        size: ``(h, w)`` that samples are scaled to, pixels; see ``draw_samples``. ``None`` leaves them as they are.
        longest: Pixels of the longer side of whole frames at most: those of all clips are scaled, and cut where their
            shape is another, to what that makes of the first clip's. ``None`` leaves them as they are.

    Raises:
        ConfigError: A number is out of range, or flow is known for clips as they are only.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        flow: FlowCache | None = None,
        clip_length: int = 4,
        crop: Sequence[int] | None = None,
        clips: int = 64,
        batch_size: int = 4,
        hflip: float = 0.5,
        zoom: float = 1.0,
        num_workers: int = 0,
        eval_chunk: int = 8,
        memory_mib: float = 1024,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        size: Sequence[int] | None = None,
        longest: int | None = None,
    ) -> None:
        super().__init__()
        check_numbers(clip_length, clips, batch_size, num_workers, eval_chunk, crop, hflip, size, longest)
        self.dataset = dataset
        self.flow = flow
        self.clip_length = clip_length
        self.crop = None if crop is None else (int(crop[0]), int(crop[1]))
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.longest = longest
        self.clips = clips
        self.batch_size = batch_size
        self.hflip = hflip
        self.zoom = zoom
        self.num_workers = num_workers
        self.eval_chunk = eval_chunk
        self.memory_mib = memory_mib
        self.seed = seed
        self.augmentation = augmentation if augmentation is not None and augmentation.active else None
        if self.augmentation is not None and flow is not None and isinstance(flow.estimator, SourceFlow):
            raise ConfigError(f"flow={flow.name} is not that of augmented samples: use flow=dis or augmentation=none")

    @cached_property
    def clip_sets(self) -> ClipSets:
        """The dataset's clips, listed when first asked for. Raises :class:`DataError` as the dataset does."""
        return self.dataset.clips()

    @property
    def evaluation_clips(self) -> tuple[ClipSource, ...]:
        """The evaluation clips; :attr:`EvalChunk.clip` is an index into them."""
        return self.clip_sets.evaluation

    def prepare_data(self) -> None:
        """Compute the flow of all samples into the cache; without this call it happens when first needed.

        Raises:
            DataError: As :attr:`samples` does.
            SaveError: The flow cache cannot be written.
        """
        if self.flow is None:
            return
        self.fill_flow()

    def fill_flow(self, whole: bool = False) -> None:
        """Compute the flow of all samples, or of all calibration clips from end to end, into the cache.

        Raises:
            DataError: A clip cannot be read, or there is none.
            SaveError: The flow cache cannot be written.
            ConfigError: There is no flow.
        """
        if self.flow is None:
            raise ConfigError("there is no flow to compute: give flow=")
        clips = self._drawn[0]
        cuts = [(s.clip, s.start, s.stop) for s in self.samples]
        if whole:
            cuts = [(i, 0, clip.num_frames) for i, clip in enumerate(clips) if clip.num_frames > 1]
        for clip, start, stop in track(cuts, description="optical flow", transient=True):
            self._flows[clip].ensure(start, stop)

    def setup(self, stage: str | None = None) -> None:
        """List and check the clips of a stage. Raises :class:`DataError`."""
        if stage in (None, "fit"):
            _ = self.samples
        if stage in (None, "test") and self.evaluation_clips:
            for clip in self.evaluation_clips:
                check_has_subject(clip)

    @cached_property
    def samples(self) -> list[CalibrationSample]:
        """The calibration samples, drawn when first asked for.

        Raises:
            DataError: There is no calibration clip, or one is too short, unreadable or empty.
            ConfigError: The crop does not fit.
        """
        return self._drawn[1]

    @cached_property
    def _drawn(self) -> tuple[Sequence[ClipSource], list[CalibrationSample]]:
        """What samples are cut from (the calibration clips, or an augmented clip for each sample), and the samples."""
        sources = self.clip_sets.calibration
        if not sources:
            raise DataError("the dataset gives no calibration clips; check data.root")
        size = self.size
        if size is None and self.crop is None and self.longest is not None:
            size = within(sources[0].size, self.longest)
        how = (self.clips, self.clip_length, self.crop, self.hflip, self.seed, self.zoom, size)
        if self.augmentation is None:
            return sources, draw_samples(sources, *how)
        return draw_augmented(sources, self.augmentation, *how)

    @cached_property
    def calibration(self) -> CalibrationData:
        """The samples as a map-style dataset of :class:`ClipBatch` without the batch dimension."""
        flows = None if self.flow is None else self._flows
        return CalibrationData(*self._drawn, flows, self.memory_mib)

    @cached_property
    def _flows(self) -> list[ClipFlow]:
        assert self.flow is not None
        return [self.flow.open(clip) for clip in self._drawn[0]]

    def calibration_batch(self, indices: Sequence[int] | None = None) -> ClipBatch:
        """The samples ``indices`` (all when not given) as one batch, not shuffled."""
        chosen = range(len(self.samples)) if indices is None else indices
        return self.calibration.__getitems__(chosen)

    def calibration_clips(self) -> list[ClipBatch]:
        """All samples in their own order, each as a batch of one."""
        return [self.calibration_batch([index]) for index in range(len(self.samples))]

    def train_dataloader(self) -> DataLoader[ClipBatch]:
        """Shuffled batches of samples; the order of an epoch depends on the seed and the epoch's number alone.

        Under a Trainer with several processes each gets its share, in batches of ``batch_size``.

        Raises:
            ConfigError: There are fewer samples than processes.
        """
        processes, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        if len(self.samples) < processes:
            raise ConfigError(f"calibration.clips={len(self.samples)} is too few for {processes} processes")
        return DataLoader(
            self.calibration,
            batch_size=self.batch_size,
            sampler=EpochShuffleSampler(len(self.samples), self.seed, processes=processes, rank=rank),
            num_workers=self.num_workers,
            collate_fn=_identity,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def test_dataloader(self) -> DataLoader[EvalChunk]:
        """Every evaluation clip, whole and in order, as a stream of :class:`EvalChunk` (uint8, one chunk an item).

        Raises:
            DataError: The dataset gives no evaluation clips.
        """
        if not self.evaluation_clips:
            raise DataError("the dataset gives no evaluation clips; check data.root")
        return DataLoader(
            EvaluationData(self.evaluation_clips, self.eval_chunk),
            batch_size=None,
            shuffle=False,
            num_workers=self.num_workers,
            collate_fn=_identity,
        )

    def content_hash(self, flow: bool = True) -> str:
        """SHA-256 over every calibration sample's pixels, alpha and index, and the flow provider's name.

        ``flow=False`` leaves the provider out, for stages that look at no flow.
        """
        digest = hashlib.sha256((self.flow.name if flow and self.flow is not None else "no flow").encode())
        if self.augmentation is not None:  # flow also sees what the crop does not show
            digest.update(repr(self.augmentation).encode())
        for index, sample in enumerate(self.samples):
            digest.update(repr(sample).encode())
            for tensor in self.calibration.pixels(index):
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


class CalibrationData(Dataset[ClipBatch]):
    """Calibration samples by index, decoded on demand and kept while the budget lasts.

    Args:
        clips: Calibration clips that the samples are cut from.
        samples: Where each sample is cut out of its clip.
        flows: The flow of each clip, or ``None`` to leave it out.
        memory_mib: Budget for decoded samples, MiB.
    """

    def __init__(
        self,
        clips: Sequence[ClipSource],
        samples: Sequence[CalibrationSample],
        flows: Sequence[ClipFlow] | None,
        memory_mib: float,
    ) -> None:
        self._clips = clips
        self._samples = samples
        self._flows = flows
        self._budget = memory_mib * 2**20
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __getstate__(self) -> dict[str, Any]:
        # what is kept is soon decoded again; tensors on their way to another process each take a file descriptor
        held = sum(_size(tensors) for tensors in self._kept.values())
        return {**self.__dict__, "_kept": {}, "_budget": self._budget + held}

    def __getitem__(self, index: int) -> ClipBatch:
        """Sample ``index``, without the batch dimension. Raises :class:`DataError` and what :class:`FlowCache` does."""
        frames, alpha, flow, visible, number = self.__getitems__([index])
        fields = (None if field is None else field[0] for field in (flow, visible, number))
        return ClipBatch(frames[0], alpha[0], *fields)

    def __getitems__(self, indices: Sequence[int]) -> ClipBatch:
        """Samples ``indices`` as one batch, which is cheaper than to collate them. Raises as for one."""
        return batch([self._stored(index) for index in indices], indices)

    def pixels(self, index: int) -> tuple[Tensor, Tensor]:
        """Frames ``(T, 3, h, w)`` and alpha ``(T, 1, h, w)`` of sample ``index``, uint8."""
        frames, alpha, *_ = self._stored(index)
        return frames, alpha

    def _stored(self, index: int) -> tuple[Tensor, ...]:
        if index in self._kept:
            return self._kept[index]
        tensors = self._decode(self._samples[index])
        size = _size(tensors)
        if size <= self._budget:
            self._budget -= size
            self._kept[index] = tensors
        return tensors

    def _decode(self, sample: CalibrationSample) -> tuple[Tensor, ...]:
        found = cut_clip(self._clips[sample.clip], sample)
        if self._flows is None:
            return found
        return *found, *cut_flow(self._flows[sample.clip].get(sample.start, sample.stop), sample)


def _size(tensors: Sequence[Tensor]) -> int:
    """Bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _identity(chunk: Any) -> Any:
    return chunk
