"""The files for OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ptq4vm.engines.files.openvino import OpenVinoEngine
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.graph.codes import move_codes, states_as_codes
from ptq4vm.exporting.graph.editor import Editor, Pass, drop_unread
from ptq4vm.exporting.target import TARGETS, Target
from ptq4vm.exporting.targets.openvino.branches import convolve_parts_apart
from ptq4vm.exporting.targets.openvino.clips import cut_off_as_floats
from ptq4vm.exporting.targets.openvino.constants import compute_constants
from ptq4vm.exporting.targets.openvino.write import write_model
from ptq4vm.exporting.trace import FrameShape, input_names
from ptq4vm.models.base import MattingNetwork
from ptq4vm.system.extras import needed


@TARGETS.register("openvino")
class OpenVinoTarget(Target):
    """A network as an ``.xml`` file with the graph and a ``.bin`` with its weights.

    A network that was quantized where engines store tensors (placement ``engine``) becomes a graph for video where the
    frame size is fixed: it takes and gives pictures as they lie in memory, ``(1, H, W, C)``, frames as uint8, and keeps
    its recurrent states inside, as codes. Otherwise the graph has the inputs and outputs of the ONNX file.
    """

    name = "openvino"
    suffix = ".xml"
    engine = OpenVinoEngine

    def passes(self, network: MattingNetwork, shape: FrameShape) -> Sequence[Pass]:
        """See :meth:`Target.passes`."""
        return (compute_constants, move_codes, drop_unread, convolve_parts_apart, cut_off_as_floats)

    def write(self, network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
        """Write ``out`` and its ``.bin``; metadata become the runtime information ``ptq4vm``; see :meth:`Target.write`.

        Raises:
            ConfigError: openvino or onnx is not installed, or ``out`` does not end in ``.xml``.
            SaveError: A file cannot be written.
        """
        if out.suffix != self.suffix:
            raise ConfigError(f"out={out}: OpenVINO needs a name that ends in .xml (the .bin is written beside it)")
        needed("openvino", "openvino")
        graph = self.graph(network, shape, metadata)
        zeros = {} if shape.dynamic else states_as_codes(Editor(graph), input_names(network.num_states)[1:])
        write_model(graph, out, metadata, zeros)
