"""Flow on disk, computed once for each content of a clip, provider and size."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.flow.base import FlowEstimator, ForwardFlow, SourceFlow
from ptq4vm.flow.consistency import visible_mask
from ptq4vm.flow.entries import (
    BACKWARD,
    FORMAT,
    FORWARD,
    NAMES,
    evict,
    mark_used,
    read_entry,
    remove_remains,
    write_entry,
)
from ptq4vm.types import ClipSource, FlowPair

logger = logging.getLogger(__name__)

Rows = tuple[Tensor, ...]


class FlowCache:
    """Gives the flow of a clip, from disk where it has been computed before.

    Clips are cut into segments of ``segment`` frame pairs, so that a long clip costs only the segments that are used,
    and which entries exist does not depend on which frames were asked for. An entry's key is the SHA-256 of the
    segment's frames, their size, and the estimator's name with the mask's settings. An entry holds both directions as
    float16 with their masks; it is mapped into memory, so that only the pairs asked for are read. It carries checksums:
    a truncated or altered one is computed again. Any number of processes may use the folder at once.

    Args:
        root: Folder of the entries; made when first written.
        estimator: Where flow comes from. A :class:`SourceFlow` is asked directly, without any entry.
        alpha1: See :func:`ptq4vm.flow.consistency.visible_mask`.
        alpha2: See :func:`ptq4vm.flow.consistency.visible_mask`.
        segment: Frame pairs in an entry.
        limit_mib: Size of the folder, MiB, beyond which the entries that were not used for longest are removed after
            each that is written. What a run needs at once should fit; what does not is computed again.

    Raises:
        ConfigError: ``segment`` is below 1, or ``limit_mib`` not positive.
    """

    def __init__(
        self,
        root: str | Path,
        estimator: FlowEstimator | SourceFlow,
        alpha1: float = 0.01,
        alpha2: float = 0.5,
        segment: int = 32,
        limit_mib: float | None = None,
    ) -> None:
        if limit_mib is not None and not limit_mib > 0:
            raise ConfigError(f"limit of the flow cache must be above 0 MiB, not {limit_mib}")
        if segment < 1:
            raise ConfigError(f"segment of the flow cache must be at least 1, not {segment}")
        self.root = Path(root).expanduser()
        self.estimator = estimator
        self.alpha1 = alpha1
        self.alpha2 = alpha2
        self.segment = segment
        self.limit = None if limit_mib is None else round(limit_mib * 2**20)
        self.hits = 0
        self.misses = 0

    @property
    def name(self) -> str:
        """The provider and every setting that changes the result."""
        if isinstance(self.estimator, SourceFlow):
            return self.estimator.name
        return f"{self.estimator.name}/fb-{self.alpha1:g}-{self.alpha2:g}"

    def get(self, source: ClipSource, start: int = 0, stop: int | None = None) -> FlowPair:
        """Flow between the consecutive frames of ``start:stop``: :meth:`ClipFlow.get` of a clip used once."""
        return self.open(source).get(start, stop)

    def open(self, source: ClipSource) -> ClipFlow:
        """The flow of one clip, for repeated use: each segment's frames are read and hashed once only."""
        return ClipFlow(self, source)

    def key(self, frames: Tensor) -> str:
        """Name of the entry that holds the flow of ``frames``, ``(T, 3, H, W)`` uint8."""
        digest = hashlib.sha256(f"{FORMAT}|{self.name}|{tuple(frames.shape)}|".encode())
        digest.update(frames.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def path(self, key: str) -> Path:
        """Path of the file that holds the entry ``key``, whether it is there or not."""
        return self.root / f"{key}.safetensors"

    def load(self, key: str, rows: slice, names: Sequence[str]) -> Rows | None:
        """Rows of entry ``key``, see :func:`ptq4vm.flow.entries.read_entry`; it counts as used now."""
        path = self.path(key)
        found = read_entry(path, rows, names)
        if found is not None:
            mark_used(path)
        return found

    def load_or_compute(self, frames: Tensor, key: str, rows: slice, names: Sequence[str]) -> Rows:
        """Rows of entry ``key``, which is that of ``frames``; computed by one process only, while others wait for it.

        Raises:
            SaveError: The entry cannot be written.
        """
        found = self.load(key, rows, names)
        if found is not None:
            self.hits += 1
            return found
        path = self.path(key)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")) as lock:
                found = self.load(key, rows, names)  # another process may have been first
                if found is None:
                    self.misses += 1
                    remove_remains(path)
                    found = self._compute(frames, path, rows, names)
                else:
                    self.hits += 1
                # Whoever waits for the removed file finds the entry, so that it does not matter who locks a new one.
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
            if self.limit is not None:
                evict(self.root, self.limit, keep=path)
            return found
        except OSError as error:
            raise SaveError(f"cannot write to the flow cache {self.root}: {error}; choose another folder") from error

    def _compute(self, frames: Tensor, path: Path, rows: slice, names: Sequence[str]) -> Rows:
        assert isinstance(self.estimator, FlowEstimator)
        logger.debug("computing %s flow of %d frames", self.estimator.name, len(frames))
        flow = self.estimator.estimate(frames)
        # Rounded to the stored precision first, so that a computed and a loaded result are the same bits.
        backward, forward = flow.backward.half(), flow.forward.half()
        visible = visible_mask(backward.float(), flow.forward, self.alpha1, self.alpha2)
        visible_forward = visible_mask(forward.float(), flow.backward, self.alpha1, self.alpha2)
        masks = visible.to(torch.uint8), visible_forward.to(torch.uint8)
        tensors = dict(zip(NAMES, (backward, masks[0], forward, masks[1]), strict=True))
        write_entry(path, tensors)
        return tuple(tensors[name][rows] for name in names)


class ClipFlow:
    """The flow of one clip, whose files are taken not to change while this object lives.

    Args:
        cache: The cache that entries are read from and written to.
        source: The clip whose flow is asked for.
    """

    def __init__(self, cache: FlowCache, source: ClipSource) -> None:
        self.cache = cache
        self.source = source
        self._keys: dict[int, str] = {}

    def get(self, start: int = 0, stop: int | None = None) -> FlowPair:
        """Flow between the consecutive frames of ``start:stop``, at least two.

        It is float32 that went through float16: below 32 pixels it is off by 1/128 of a pixel at most.

        Raises:
            DataError: A frame cannot be read, or the range holds fewer than two frames.
            SaveError: The entry cannot be written.
            ConfigError: The provider needs a source that knows its flow.
        """
        stop = self._check(start, stop)
        if isinstance(self.cache.estimator, SourceFlow):
            return self.cache.estimator.from_source(self.source, start, stop)
        return FlowPair(*self._read(start, stop, BACKWARD))

    def get_forward(self, start: int = 0, stop: int | None = None) -> ForwardFlow:
        """Flow like that of :meth:`get`, the other way: from each frame of ``start:stop`` to the next.

        Raises:
            ConfigError: The provider takes its flow from the clip, which knows the way back only.
        """
        stop = self._check(start, stop)
        if isinstance(self.cache.estimator, SourceFlow):
            raise ConfigError(f"flow={self.cache.estimator.name} knows the flow to the frame before only; use flow=dis")
        return ForwardFlow(*self._read(start, stop, FORWARD))

    def _read(self, start: int, stop: int, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Flow as float32 and mask as bool."""
        parts = []
        for first in self._segments(start, stop):
            rows = slice(max(start - first, 0), min(stop - 1, self._end(first)) - first)
            parts.append(self._segment(first, rows, names))
        flow, visible = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return flow.float(), visible.bool()

    def ensure(self, start: int = 0, stop: int | None = None) -> None:
        """Compute what :meth:`get` would have to compute, once. Raises what :meth:`get` does."""
        stop = self._check(start, stop)
        if isinstance(self.cache.estimator, SourceFlow):
            return
        for first in self._segments(start, stop):
            if first not in self._keys:
                self._segment(first, slice(0, self._end(first) - first), NAMES)

    def _check(self, start: int, stop: int | None) -> int:
        count = self.source.num_frames
        stop = count if stop is None else stop
        if not 0 <= start < stop - 1 < count:
            raise DataError(f"clip {self.source.name} has {count} frames; flow of {start}:{stop} needs two of them")
        return stop

    def _segments(self, start: int, stop: int) -> range:
        """First frames of the segments that hold the pairs of ``start:stop``."""
        length = self.cache.segment
        return range(start // length * length, stop - 1, length)

    def _end(self, first: int) -> int:
        """The pair after the last of the segment that begins with ``first``."""
        return min(first + self.cache.segment, self.source.num_frames - 1)

    def _segment(self, first: int, rows: slice, names: Sequence[str]) -> Rows:
        if first in self._keys:
            found = self.cache.load(self._keys[first], rows, names)
            if found is not None:
                return found
        frames = self.source.read(first, self._end(first) + 1).frames
        key = self.cache.key(frames)
        found = self.cache.load_or_compute(frames, key, rows, names)
        self._keys[first] = key
        return found
