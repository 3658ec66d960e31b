"""The file for LiteRT."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ptq4vm.engines.files.litert import CHECKSUM, METADATA, LiteRtEngine
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.graph.codes import move_codes, states_as_codes
from ptq4vm.exporting.graph.editor import Editor, Pass, drop_unread
from ptq4vm.exporting.target import TARGETS, Target
from ptq4vm.exporting.targets.litert.lower import lower
from ptq4vm.exporting.targets.litert.shaping import normalize_by_convolution, round_states_at_once, state_grids
from ptq4vm.exporting.trace import FrameShape, input_names
from ptq4vm.io import atomic_path
from ptq4vm.models.base import MattingNetwork
from ptq4vm.system.extras import needed


@TARGETS.register("litert")
class LiteRtTarget(Target):
    """A network as one ``.tflite`` file of LiteRT's own operations, for frames of one size.

    It takes a frame and gives its matte as they lie in memory, ``(1, H, W, C)``: ``src`` as int8 (a byte less 128), and
    ``fgr`` and ``pha`` as floats. The recurrent states go in and come out, as codes where the network stores them so.
    """

    name = "litert"
    suffix = ".tflite"
    engine = LiteRtEngine

    def passes(self, network: MattingNetwork, shape: FrameShape) -> Sequence[Pass]:
        """See :meth:`Target.passes`."""
        return (move_codes, drop_unread)

    def write(self, network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
        """Write the file, whole or not at all; see :meth:`Target.write`.

        Raises:
            ConfigError: ai-edge-litert or onnx is not installed, or the file shall take any size.
            ExportError: LiteRT does not have an operation of the network.
        """
        if shape.dynamic:
            raise ConfigError(
                "target=litert: a .tflite file has one size: leave dynamic out; matte brings frames of any size to it"
            )
        needed("ai_edge_litert", "litert")
        editor = Editor(self.graph(network, shape, metadata))
        names = input_names(network.num_states)[1:]
        round_states_at_once(editor, names)
        grids = state_grids(editor, names)
        grids = grids if states_as_codes(editor, names) else {}
        normalize_by_convolution(editor)
        made = lower(editor, grids)
        content = made.model.content(made.inputs, made.outputs, {METADATA: _described(metadata)})
        with atomic_path(out) as temporary:
            temporary.write_bytes(_signed(content))


def _described(metadata: Mapping[str, str]) -> bytes:
    return json.dumps({**metadata, CHECKSUM: "0" * 8}).encode()


def _signed(content: bytes) -> bytes:
    """A file with the checksum of all of it, which was counted with eight zeros in its place."""
    key = f'"{CHECKSUM}": "'.encode()
    place = content.rindex(key + b"0" * 8) + len(key)
    return content[:place] + f"{zlib.crc32(content):08x}".encode() + content[place + 8 :]
