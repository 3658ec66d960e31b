"""The demo clips: made from pictures in installed packages, without any download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError, safe_open

from ptq4vm.data.base import DATASETS, ClipSets
from ptq4vm.data.clips.sources import FolderClip
from ptq4vm.data.demo.build import build_demo, demo_key
from ptq4vm.errors import ConfigError, DataError
from ptq4vm.io import default_cache_dir
from ptq4vm.media.images import list_folders
from ptq4vm.types import Clip, FlowPair


@dataclass(frozen=True)
class DemoClip:
    """A clip in the folder layout that knows its optical flow.

    Attributes:
        clip: Images of the clip, with their alpha.
        flow: File with ``flow`` and ``visible`` between all consecutive frames.
    """

    clip: FolderClip
    flow: Path

    @property
    def name(self) -> str:
        """Unique name inside the dataset."""
        return self.clip.name

    @property
    def num_frames(self) -> int:
        """How many frames the clip has."""
        return self.clip.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)`` in pixels."""
        return self.clip.size

    def read(self, start: int = 0, stop: int | None = None) -> Clip:
        """Decode frames ``start:stop``. Raises :class:`DataError`."""
        return self.clip.read(start, stop)

    def read_flow(self, start: int = 0, stop: int | None = None) -> FlowPair:
        """Exact flow (to float16) between consecutive frames. Raises :class:`DataError` for a damaged file."""
        stop = self.num_frames if stop is None else stop
        try:
            with safe_open(self.flow, framework="pt") as file:
                flow, visible = (file.get_slice(key)[start : stop - 1] for key in ("flow", "visible"))
        except (SafetensorError, OSError) as error:
            raise DataError(f"flow file {self.flow} cannot be read ({error}); delete {self.flow.parents[2]}") from error
        return FlowPair(flow.float(), visible.bool())


@DATASETS.register("demo")
class DemoDataset:
    """Six clips to calibrate on and three to evaluate, of other people over other backgrounds.

    Args:
        root: Where they are kept; the user's cache folder (or ``$PTQ4VM_CACHE``) if not given.
        frames: Frames of each clip.
        size: ``(H, W)`` of the frames, pixels.
        seed: Seed that all motions are drawn from.

    Raises:
        ConfigError: ``frames`` is below 2.
    """

    writes_to: ClassVar[tuple[str, ...]] = ("root",)

    def __init__(
        self, root: str | Path | None = None, frames: int = 24, size: tuple[int, int] = (288, 512), seed: int = 0
    ) -> None:
        if frames < 2:
            raise ConfigError(f"data.frames must be at least 2, not {frames}")
        parent = default_cache_dir() / "demo" if root is None else Path(root).expanduser()
        self.frames = frames
        self.size = (int(size[0]), int(size[1]))
        self.seed = seed
        self.root = parent / demo_key(self.frames, self.size, seed)

    def clips(self) -> ClipSets:
        """List the clips, making them first where they are missing.

        Raises:
            DataError: A package that ships pictures is not installed.
            SaveError: The folder cannot be written.
        """
        build_demo(self.root, self.frames, self.size, self.seed)
        return ClipSets(self._list("calibration"), self._list("evaluation"))

    def _list(self, group: str) -> tuple[DemoClip, ...]:
        folders = list_folders(self.root / group)
        return tuple(DemoClip(FolderClip.from_folder(folder), folder / "flow.safetensors") for folder in folders)
