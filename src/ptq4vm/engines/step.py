"""What the engines of exported files share: frames to inputs, outputs to mattes, and the states between."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines import said
from ptq4vm.engines.base import Matte, MattingEngine
from ptq4vm.engines.costs.operation import Costs, Frames
from ptq4vm.errors import ConfigError, DataError, ExportError
from ptq4vm.limits import PIXELS, SIDE, check_size
from ptq4vm.system.cpu import Cpu, this_cpu

log = logging.getLogger(__name__)

Tensors = dict[str, NDArray[np.float32]]
_COLOURS, _RANK = 3, 4


class Port(NamedTuple):
    """An input of an exported graph: its name, and the size of each dimension, ``None`` where any will do."""

    name: str
    shape: tuple[int | None, ...]

    @property
    def rows_first(self) -> bool:
        """Whether it takes pictures as they lie in memory, ``(1, H, W, 3)`` uint8."""
        return self.shape[-1] == _COLOURS and self.shape[1] != _COLOURS

    @property
    def possible(self) -> bool:
        """Whether it is one of a matting graph: four sizes, each of 1 to :data:`ptq4vm.limits.SIDE` or open."""
        sizes = [size for size in self.shape if size is not None]
        return len(self.shape) == _RANK and all(1 <= size <= SIDE for size in sizes) and math.prod(sizes) <= PIXELS

    def scaled(self, old: tuple[int, int], new: tuple[int, int]) -> Port:
        """The same input where frames have ``new`` = ``(H, W)`` pixels and not ``old``."""
        first = 1 if self.name == "src" and self.rows_first else 2
        sizes = list(self.shape)
        for axis, before, after in zip((first, first + 1), old, new, strict=True):
            length = sizes[axis]
            sizes[axis] = None if length is None else length * after // before
        return Port(self.name, tuple(sizes))


class StepEngine(MattingEngine):
    """Runs an exported graph ``src, r1i, ... -> fgr, pha, r1o, ...`` frame by frame.

    A graph may instead keep its states inside and take and give pictures as they lie in memory.

    A class is registered with :data:`ptq4vm.engines.registry.ENGINES`. Its own constructor takes ``file``, ``threads``
    and, as keywords, options of its own.

    Args:
        file: The file that holds the graph.
        inputs: Names and sizes of the graph's inputs.
        outputs: Names of the graph's outputs.
        metadata: What the file says about itself.

    A file whose integers only a CPU with VNNI computes exactly is opened with a warning where there is none.

    Attributes:
        title: The engine's name for people, such as ``ONNX Runtime``.
        package: The Python package that it needs.
        suffixes: What the names of files that it opens end in, lower case; those made for it come first.
        precisions: Types in which it can be told to compute floats, by the option ``precision``; empty where it cannot.
        uses_onednn: Whether the engine's integer kernels are oneDNN's.
        file: The file that is open.
        metadata: What the file says about itself.
        downsample_ratio: Fraction of the frames' size at which the graph runs its network, in (0, 1].
        file_size: ``(H, W)`` for which the file was written, or ``None`` where it takes any size.
        size_step: What rows and columns are multiples of at every size that :meth:`reshape` can give the graph; 0 where
            the file has one size, or takes any as it is.

    Raises:
        ExportError: Inputs or outputs are not those of a file that ``ptq4vm export`` wrote.
    """

    title: ClassVar[str] = ""
    package: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]] = ()
    uses_onednn: ClassVar[bool] = False

    def __init__(
        self, file: str | Path, inputs: Sequence[Port], outputs: Sequence[str], metadata: Mapping[str, str]
    ) -> None:
        self.file = Path(file)
        self.metadata = dict(metadata)
        self._ports = {port.name: port for port in inputs}
        states = len(inputs) - 1
        self._carried = [(f"r{i + 1}i", f"r{i + 1}o") for i in range(states)]
        if set(self._ports) != {"src", *(name for name, _ in self._carried)} or set(outputs) != {
            "fgr",
            "pha",
            *(name for _, name in self._carried),
        }:
            raise ExportError(f"{file} takes {', '.join(self._ports)}: give a file that `ptq4vm export` wrote")
        for port in inputs:
            if not port.possible:
                raise ExportError(f"{file} takes {port.name} of {port.shape}: give a file that `ptq4vm export` wrote")
        self.downsample_ratio = said.ratio(metadata.get("downsample_ratio", "1"), file)
        self._strides = said.strides(metadata.get("state_strides", ""), states)
        self.file_size = self.frame_size
        self._written = tuple(inputs)
        self.size_step = 0 if self.file_size is None else said.step(metadata.get("size_step", ""))
        self._states: Tensors = {}
        self._size: tuple[int, int] | None = None
        if not self.exact(self.cpu) and said.needs_vnni(self.metadata):
            log.warning(
                "%s was made for CPUs with VNNI (%s): on this %s its mattes may be wrong; quantize again with "
                "overflow=safe and export again",
                *(file, self.metadata.get("overflow", "by a version that knew no other"), self.cpu),
            )

    @classmethod
    def open(cls, file: Path, threads: int | None = None, **options: Any) -> StepEngine:
        """Open a file, by the constructor of the class.

        Args:
            file: The exported file.
            threads: CPU threads; as many as the engine likes when not given.
            options: Further keywords of the class's constructor.

        Raises:
            ConfigError: The engine's package is not installed, or a value is out of range.
            ExportError: The file is missing, damaged or not one of ours.
        """
        build: Any = cls
        engine: StepEngine = build(file, threads, **options)
        return engine

    @classmethod
    def files(cls, file: Path) -> tuple[Path, ...]:
        """All files that make up an exported one, ``file`` first."""
        return (file,)

    @classmethod
    def costs(cls, file: Path, frames: Frames, threads: int | None = None, warm_up: int = 0) -> Costs:
        """Matte frames of a file, and tell what each of its operations took, and why those in float are.

        Args:
            file: The exported file.
            frames: ``(H, W, 3)`` uint8 of the file's size, at least one.
            threads: CPU threads; as many as the engine likes when not given.
            warm_up: Frames that are matted before and do not count.

        Raises:
            ConfigError: The engine does not tell, its package is not installed, or a number is out of range.
            DataError: There are no frames, or they are not of the file's size.
            ExportError: The file is missing, damaged or not one of ours.
        """
        raise ConfigError(f"{cls.title} does not tell what the operations of {file} cost: explain another file")

    @classmethod
    def exact(cls, cpu: Cpu) -> bool:
        """Whether the engine computes sums of products of 8-bit integers on ``cpu`` without cutting them off."""
        return cpu.exact

    @property
    def cpu(self) -> Cpu:
        """The CPU as the engine uses it."""
        return this_cpu(self.uses_onednn)

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """``(H, W)`` of the frames that the graph takes now, or ``None`` where it takes any size."""
        port = self._ports["src"]
        height, width = port.shape[1:3] if port.rows_first else port.shape[2:]
        return None if height is None or width is None else (height, width)

    @property
    def src(self) -> Port:
        """The input that takes the frames."""
        return self._ports["src"]

    def state_shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of the float states before frames of ``size`` = ``(H, W)``, in order; none where they are inside.

        Args:
            size: The size of the frames, which a file of one size has itself.
        """
        return {name: self._state_shape(name, size) for name, _ in self._carried}

    def reset(self) -> None:
        """Forget the frames seen so far: the next one starts from states of zeros."""
        self._states = {}

    def reshape(self, size: tuple[int, int]) -> None:
        """Let the graph take frames of another size from now on, as if the file had been exported for it.

        The next frame begins a video. The new graph is tried on an empty frame first.

        Args:
            size: ``(H, W)``, both multiples of :attr:`size_step`.

        Raises:
            ConfigError: They are not, or out of range, or what the engine needs for it is not installed.
            ExportError: The file has one size or takes any as it is, is missing or damaged by now, or the engine cannot
                run the graph so. The engine goes on with the size that it had.
        """
        before, step = self.frame_size, self.size_step
        self.reset()
        if size == before:
            return
        text = f"{size[1]}x{size[0]}"
        if not step or before is None:
            told = "any size as it is" if before is None else f"{before[1]}x{before[0]} alone"
            raise ExportError(f"{self.file} runs at {told}, not re-shaped to {text}: export again with another size")
        check_size("size", size)
        if any(length % step for length in size):
            raise ConfigError(f"size={text}: {self.file} runs at sizes whose both sides are multiples of {step}")
        try:
            self._become(size)
            self.matte(np.zeros((*size, _COLOURS), np.uint8))
        except (ConfigError, ExportError):
            if self.frame_size != before:
                self._become(before)
            raise
        self.reset()

    def _become(self, size: tuple[int, int]) -> None:
        """Give the graph, and what is known of its inputs, another size."""
        ports = [port.scaled(self.file_size or size, size) for port in self._written]
        self._rebuild(size, ports)
        self._ports = {port.name: port for port in ports}
        self.reset()

    def _rebuild(self, size: tuple[int, int], inputs: Sequence[Port]) -> None:
        """Make the graph one for another size; an engine that can overrides it.

        Args:
            size: ``(H, W)`` of the frames.
            inputs: The graph's inputs, as they shall be.

        Raises:
            ExportError: It cannot be, or the file is missing or damaged by now. The graph is what it was.
        """
        raise ExportError(f"{self.title or type(self).__name__} runs {self.file} at its own size alone: leave size out")

    def matte(self, frame: NDArray[np.uint8]) -> Matte:
        """Matte one frame ``(H, W, 3)`` uint8.

        Raises:
            DataError: It is no such picture, or not of the size that the file was made for.
        """
        size = self._checked(frame)
        if size != self._size:
            self.reset()
            self._size = size
        if not self._states:
            self._states = {name: np.zeros(shape, np.float32) for name, shape in self.state_shapes(size).items()}
        if self._ports["src"].rows_first:
            outputs = self._run({"src": np.ascontiguousarray(frame)[None]})
            self._check(outputs, {"pha": (1, *size, 1), "fgr": (1, *size, _COLOURS)})
            return Matte(outputs["pha"][0, ..., 0], outputs["fgr"][0])
        src = np.ascontiguousarray(frame.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)
        outputs = self._run({"src": src, **self._states})
        states = {after: self._states[name].shape for name, after in self._carried}
        self._check(outputs, {"pha": (1, 1, *size), "fgr": (1, _COLOURS, *size), **states})
        self._states = {name: outputs[after] for name, after in self._carried}
        return Matte(outputs["pha"][0, 0], cv2.merge(list(outputs["fgr"][0])))  # far quicker than NumPy's transposition

    def layer_results(
        self, feeds: Mapping[str, NDArray[np.float32]], names: Sequence[str], earlier: Sequence[NDArray[np.uint8]] = ()
    ) -> Tensors:
        """Compute one frame and give results inside the graph; for the search after a failed verification, not for
        speed.

        Args:
            feeds: ``src`` ``(1, 3, H, W)`` in [0, 1] and the states before it.
            names: Names of the tensors to give: layers' results, which exported files call by the layers' paths, and
                outputs (``pha``, ``r1o``, ...).
            earlier: ``(H, W, 3)`` uint8: the frames before, for a file that keeps its states inside.

        Returns:
            ``(1, C, H, W)`` each, of those that the file still has; none where the engine does not tell any.

        Raises:
            ExportError: The file is missing or damaged by now.
        """
        return {}

    @abstractmethod
    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """The graph's outputs by name, in memory that the next call does not overwrite.

        Raises:
            ExportError: The engine cannot compute them.
        """

    def _check(self, outputs: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse outputs of other shapes than a matte and states have."""
        for name, shape in shapes.items():
            if outputs[name].shape != shape:
                found = outputs[name].shape
                raise ExportError(f"{self.file} gives {name} of {found} instead of {shape}: export again")

    def _checked(self, frame: NDArray[np.uint8]) -> tuple[int, int]:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise DataError(f"a frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        size = (frame.shape[0], frame.shape[1])
        if self.frame_size not in (None, size):
            height, width = self.frame_size or size
            raise DataError(
                f"{self.file} takes frames of {width}x{height}, not {size[1]}x{size[0]}: resize them, "
                f"or export with size={size[1]}x{size[0]} or dynamic=true"
            )
        return size

    def _state_shape(self, name: str, size: tuple[int, int]) -> tuple[int, ...]:
        """Shape of a state: as the graph says, else the network's size over the state's stride, rounded up."""
        shape = self._ports[name].shape
        sizes = (*shape[:2], *state_size(size, self.downsample_ratio, self._strides[int(name[1:-1]) - 1]))
        return tuple(known if known is not None else int(own or 1) for known, own in zip(shape, sizes, strict=True))


def state_size(size: Sequence[int], ratio: float, stride: int) -> tuple[int, ...]:
    """Rows and columns of a state of stride ``stride`` for frames of ``size`` = ``(H, W)`` at a downsample ratio."""
    return tuple(math.ceil(math.floor(length * ratio) / stride) for length in size)
