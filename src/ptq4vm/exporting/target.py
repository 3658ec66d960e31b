"""What a quantized network can be exported for, and the seam for more: a class that writes, and the engine it names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ptq4vm.engines.step import StepEngine
from ptq4vm.exporting.graph.editor import Pass
from ptq4vm.exporting.trace import FrameShape, to_onnx
from ptq4vm.io import atomic_path
from ptq4vm.models.base import MattingNetwork
from ptq4vm.system.cpu import Cpu
from ptq4vm.system.registry import Registry


class Target(ABC):
    """What is true of one export target, and of no other.

    A target is registered as a class without arguments: ``@TARGETS.register("mine")``. Where quantizers must stand, and
    which scales may differ, for its engine to compute with integers is a matter of calibration and not of export: the
    file ``conf/target/<name>.yaml`` sets these values of ``method.quantizer`` (``placement``, ``stores``,
    ``activation.granularity``), and ``ptq4vm quantize +target=<name>`` takes them. A network that was calibrated
    otherwise can be exported too; its engine then computes more in float.

    Attributes:
        name: Name under which it is registered and chosen (``target=onnx``), and by which a network knows which form
            its special modules shall have.
        suffix: What the written file's name ends in, such as ``.onnx``; its engine opens files by it.
        engine: The class that opens its files, of :data:`ptq4vm.engines.registry.ENGINES`.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    engine: ClassVar[type[StepEngine]]

    def files(self, out: Path) -> tuple[Path, ...]:
        """Everything that :meth:`write` writes for ``out``, ``out`` first."""
        return self.engine.files(out)

    def exact(self, cpu: Cpu) -> bool:
        """Whether its engine computes sums of products of 8-bit integers on ``cpu`` without cutting them off."""
        return self.engine.exact(cpu)

    def passes(self, network: MattingNetwork, shape: FrameShape) -> Sequence[Pass]:
        """What shall happen to the ONNX graph for the engine's sake, in this order; nothing unless overridden.

        Args:
            network: The quantized network.
            shape: Size of the frames that the graph takes.
        """
        return ()

    def graph(self, network: MattingNetwork, shape: FrameShape, metadata: Mapping[str, str] | None = None) -> Any:
        """The ``onnx.ModelProto`` of a network, shaped for the engine; see :func:`ptq4vm.exporting.trace.to_onnx`.

        Raises:
            ConfigError: onnx is not installed.
        """
        return to_onnx(network, shape, metadata or {}, self.name, self.passes(network, shape))

    @abstractmethod
    def write(self, network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
        """Write a network for the engine; what was there stays whole until all is written.

        Args:
            network: The quantized network, from :func:`ptq4vm.api.load_checkpoint`; not changed.
            out: The file to write, whose name ends in :attr:`suffix`.
            shape: Size of the frames that the file shall take, fixed in it.
            metadata: Text that the engine finds again as ``metadata``; see :func:`ptq4vm.exporting.metadata.describe`.

        Raises:
            ConfigError: A package that it needs is not installed, or ``out`` has another suffix.
            SaveError: A file cannot be written.
        """


class GraphTarget(Target):
    """A target whose file is the ONNX graph itself."""

    def write(self, network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
        """Write the file, whole or not at all; see :meth:`Target.write`."""
        content = self.graph(network, shape, metadata).SerializeToString()
        with atomic_path(out) as temporary:
            temporary.write_bytes(content)


TARGETS: Registry[type[Target]] = Registry("target", "ptq4vm.exporting.targets")
"""Classes by the name that ``target=`` gives; packages from outside add theirs by the group ``ptq4vm.targets``."""
