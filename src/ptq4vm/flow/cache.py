"""Flow on disk, computed once for each content of a clip, provider and size."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ptq4vm.errors import ConfigError, DataError, SaveError
from ptq4vm.flow.base import FlowEstimator, SourceFlow
from ptq4vm.flow.consistency import visible_mask
from ptq4vm.io import write_tensors
from ptq4vm.types import ClipSource, FlowPair

logger = logging.getLogger(__name__)

_FORMAT = "2"  # raise when the meaning of an entry changes


class FlowCache:
    """Gives the flow of a clip, from disk where it has been computed before.

    Clips are cut into segments of ``segment`` frame pairs, so that a long clip costs only the segments that are used,
    and which entries exist does not depend on which frames were asked for. An entry's key is the SHA-256 of the
    segment's frames, their size, and the estimator's name with the mask's settings. Each entry carries its own
    checksum: a truncated or altered one is computed again.

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
        digest = hashlib.sha256(f"{_FORMAT}|{self.name}|{tuple(frames.shape)}|".encode())
        digest.update(frames.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def path(self, key: str) -> Path:
        """File of an entry."""
        return self.root / f"{key}.safetensors"

    def load(self, key: str) -> FlowPair | None:
        """Entry ``key``, or ``None`` where there is none that can be trusted; it counts as used now."""
        path = self.path(key)
        found = _load(path)
        if found is not None and self.limit is not None:
            with contextlib.suppress(OSError):  # removed by another process, or a folder that is read only
                os.utime(path)
        return found

    def load_or_compute(self, frames: Tensor, key: str) -> FlowPair:
        """Entry ``key``, which is that of ``frames``; computed by one process only, while others wait for it.

        Raises:
            SaveError: The entry cannot be written.
        """
        path = self.path(key)
        found = self.load(key)
        if found is not None:
            self.hits += 1
            return found
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                found = self.load(key)  # another process may have been first
                if found is not None:
                    self.hits += 1
                    return found
                self.misses += 1
                computed = self._compute(frames, path)
            if self.limit is not None:
                evict(self.root, self.limit, keep=path)
            return computed
        except OSError as error:
            raise SaveError(f"cannot write to the flow cache {self.root}: {error}; choose another folder") from error

    def _compute(self, frames: Tensor, path: Path) -> FlowPair:
        assert isinstance(self.estimator, FlowEstimator)
        logger.debug("computing %s flow of %d frames", self.estimator.name, len(frames))
        flow = self.estimator.estimate(frames)
        # Rounded to the stored precision first, so that a computed and a loaded result are the same bits.
        stored = flow.backward.half()
        visible = visible_mask(stored.float(), flow.forward, self.alpha1, self.alpha2)
        tensors = {"flow": stored, "visible": visible.to(torch.uint8)}
        write_tensors(path, tensors, {"format": _FORMAT, "key": path.stem, "checksum": _checksum(**tensors)})
        return FlowPair(stored.float(), visible)


class ClipFlow:
    """The flow of one clip, whose files are taken not to change while this object lives.

    Args:
        cache: Where entries are.
        source: The clip.
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
        parts = []
        for first in self._segments(start, stop):
            pair = self._segment(first)
            window = slice(max(start - first, 0), stop - 1 - first)
            parts.append(FlowPair(pair.backward[window], pair.visible[window]))
        return FlowPair(torch.cat([part.backward for part in parts]), torch.cat([part.visible for part in parts]))

    def ensure(self, start: int = 0, stop: int | None = None) -> None:
        """Compute what :meth:`get` would have to compute, once. Raises what :meth:`get` does."""
        stop = self._check(start, stop)
        if isinstance(self.cache.estimator, SourceFlow):
            return
        for first in self._segments(start, stop):
            if first not in self._keys:
                self._segment(first)

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

    def _segment(self, first: int) -> FlowPair:
        if first in self._keys:
            found = self.cache.load(self._keys[first])
            if found is not None:
                return found
        frames = self.source.read(first, min(first + self.cache.segment + 1, self.source.num_frames)).frames
        key = self.cache.key(frames)
        pair = self.cache.load_or_compute(frames, key)
        self._keys[first] = key
        return pair


def cache_size(root: Path | str) -> tuple[int, int]:
    """Entries of a cache folder and their bytes; none where it does not exist."""
    entries = _entries(Path(root))
    return len(entries), sum(size for _, size, _ in entries)


def evict(root: Path, limit: int, keep: Path | None = None) -> int:
    """Remove entries, those that were not used for longest first, until at most ``limit`` bytes are left.

    Safe beside other processes: an entry that one of them is reading stays readable to it, and an entry that is gone is
    computed again by whoever needs it.

    Args:
        root: Folder of the entries.
        limit: Bytes.
        keep: An entry that stays in any case: the one that has just been written.

    Returns:
        How many were removed.
    """
    entries = sorted(_entries(root))
    total, removed = sum(size for _, size, _ in entries), 0
    for _, size, path in entries:
        if total <= limit:
            break
        if path == keep:
            continue
        path.unlink(missing_ok=True)
        total, removed = total - size, removed + 1
    if removed:
        logger.info("removed %d flow entries from %s, which is limited to %d MiB", removed, root, limit >> 20)
    return removed


def _entries(root: Path) -> list[tuple[float, int, Path]]:
    """When it was used last, bytes and path of each entry."""
    found = []
    for path in root.glob("[!.]*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another process may evict too
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found


def _load(path: Path) -> FlowPair | None:
    """The entry at ``path``, or ``None`` where there is none or it is not what was written under that name."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            flow, visible = file.get_tensor("flow"), file.get_tensor("visible")
    except (SafetensorError, OSError) as error:
        logger.warning("flow entry %s is damaged (%s); computing it again", path, error)
        return None
    expected = {"format": _FORMAT, "key": path.stem, "checksum": _checksum(flow, visible)}
    if metadata != expected:
        logger.warning("flow entry %s does not hold what it says; computing it again", path)
        return None
    return FlowPair(flow.float(), visible.bool())


def _checksum(flow: Tensor, visible: Tensor) -> str:
    digest = hashlib.sha256(flow.contiguous().numpy().tobytes())
    digest.update(visible.contiguous().numpy().tobytes())
    return digest.hexdigest()
