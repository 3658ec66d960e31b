"""The file for the engine of binary networks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ptq4vm.engines.files.bits import PROGRAM, BitsEngine
from ptq4vm.errors import ConfigError
from ptq4vm.exporting.graph.editor import Editor
from ptq4vm.exporting.target import TARGETS, Target
from ptq4vm.exporting.targets.bits.lower import lower
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.io import write_tensors
from ptq4vm.models.base import MattingNetwork


@TARGETS.register("bits")
class BitsTarget(Target):
    """A binary network as one ``.bits`` file: a weight is a bit, factors and thresholds are floats.

    The file is safetensors; one of its tensors is the list of operations, compressed. One frame size is fixed in it;
    ``ptq4vm matte`` brings videos of any size to it and the matte back.
    """

    name = "bits"
    suffix = ".bits"
    engine = BitsEngine

    def write(self, network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
        """Write the file, whole or not at all; see :meth:`Target.write`.

        Raises:
            ExportError: The network is not binary.
        """
        if shape.dynamic or shape.downsample_ratio != 1:
            raise ConfigError(
                "target=bits: a .bits file has one size and no filter: leave dynamic and downsample_ratio out; matte "
                "brings frames of any size to the file's"
            )
        program, arrays = lower(Editor(self.graph(network, shape, metadata)))
        arrays[PROGRAM] = np.frombuffer(zlib.compress(program.encode(), 9), np.uint8).copy()
        write_tensors(out, {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata)
