"""The file for LiteRT."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ptq4vm.engines.files.litert import CHECKSUM, METADATA, LiteRtEngine
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.graph.codes import move_codes, states_as_codes
from ptq4vm.exporting.graph.editor import Editor, Grid, Pass, drop_unread
from ptq4vm.exporting.target import TARGETS, Target
from ptq4vm.exporting.targets.litert.lower import lower
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
        _unclip(editor, names)
        grids = _grids(editor, names)
        grids = grids if states_as_codes(editor, names) else {}
        editor.finish()
        made = lower(editor, grids)
        content = made.model.content(made.inputs, made.outputs, {METADATA: _described(metadata)})
        with atomic_path(out) as temporary:
            temporary.write_bytes(_signed(content))


def _unclip(editor: Editor, names: Sequence[str]) -> None:
    """Round states as they come in: what came out of the graph lies within the bounds of few bits already."""
    for name in names:
        clip = editor.only_reader(name)
        quantizer = editor.only_reader(clip.output[0], "QuantizeLinear") if clip is not None else None
        if quantizer is not None and clip.op_type in ("Clip", "Min"):
            quantizer.input[0] = name
            editor.remove(clip)


def _grids(editor: Editor, names: Sequence[str]) -> dict[str, Grid]:
    """Grids of the states that are rounded to codes first of all; of bare codes where channels have their own scales."""
    found = {}
    for name in names:
        for node in [node for node in editor.readers(name) if node.op_type == "QuantizeLinear"]:
            found[name] = editor.grid(node) or Grid(1.0, int(editor.scales(node)[1].ravel()[0]))
    return found


def _described(metadata: Mapping[str, str]) -> bytes:
    return json.dumps({**metadata, CHECKSUM: "0" * 8}).encode()


def _signed(content: bytes) -> bytes:
    """A file with the checksum of all of it, which was counted with eight zeros in its place."""
    key = f'"{CHECKSUM}": "'.encode()
    place = content.rindex(key + b"0" * 8) + len(key)
    return content[:place] + f"{zlib.crc32(content):08x}".encode() + content[place + 8 :]
