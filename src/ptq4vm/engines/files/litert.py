"""Exported LiteRT files run by LiteRT."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.costs.litert import operations
from ptq4vm.engines.costs.operation import Costs, Frames, matte_all
from ptq4vm.engines.registry import ENGINES
from ptq4vm.engines.step import Port, StepEngine, Tensors
from ptq4vm.errors import ExportError, shortened
from ptq4vm.limits import check_threads
from ptq4vm.system.cpu import Cpu, usable_cpus
from ptq4vm.system.extras import needed

METADATA = "ptq4vm"
"""Name of the entry in a file's metadata: what it says about itself, as JSON."""
CHECKSUM = "crc32"
"""Of the whole file, eight digits, counted with zeros in their place; the last of what it says."""
_MAGIC = b"TFL3"
_SIGN = np.uint8(128)
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@ENGINES.register("litert")
class LiteRtEngine(StepEngine):
    """LiteRT on the CPU, with XNNPACK's kernels. It adds products of 8-bit integers in 32 bits on every CPU.

    The file takes and gives the recurrent states; the engine carries them from frame to frame as they come.

    Args:
        file: From ``ptq4vm export target=litert``.
        threads: CPU threads; all that the process may use when not given.

    Raises:
        ExportError: The file is missing, damaged, or not one of ours.
        ConfigError: ai-edge-litert is not installed, or ``threads`` is not positive.
    """

    title = "LiteRT"
    package = "ai_edge_litert"
    suffixes = (".tflite",)

    def __init__(self, file: str | Path, threads: int | None = None) -> None:
        check_threads(threads)
        interpreters = needed("ai_edge_litert.interpreter", "litert")
        content, said = _read(Path(file))
        try:
            self._interpreter = interpreters.Interpreter(model_content=content, num_threads=threads or usable_cpus())
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"{file} cannot be opened ({shortened(error)}): export again") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._inputs = {each["name"]: each for each in inputs}
        self._outputs = {each["name"]: each["index"] for each in outputs}
        ports = [Port(each["name"], tuple(map(int, each["shape"]))) for each in inputs]
        super().__init__(file, ports, list(self._outputs), said)
        self._memory = {after: before for before, after in self._carried}
        self._carried = []  # they are carried here
        self.reset()

    @classmethod
    def costs(cls, file: Path, frames: Frames, threads: int | None = None, warm_up: int = 0) -> Costs:
        """See :meth:`StepEngine.costs`: without times of operations."""
        engine = cls(file, threads)
        frame = matte_all(engine, frames, warm_up)
        found, notes = operations(engine._interpreter)
        return Costs(found, frame, notes, timed=False)

    @classmethod
    def exact(cls, cpu: Cpu) -> bool:
        """See :meth:`StepEngine.exact`: on every CPU."""
        return True

    def reset(self) -> None:
        """Start the next frame from zero states."""
        super().reset()
        for name in self._memory.values():
            port = self._inputs[name]
            zero = port["quantization"][1] if port["dtype"] == np.int8 else 0
            self._interpreter.set_tensor(port["index"], np.full(port["shape"], zero, port["dtype"]))

    def executed_types(self) -> Mapping[tuple[str, str], int]:
        """See :meth:`MattingEngine.executed_types`: convolutions only."""
        kinds = {each["index"]: each["dtype"] for each in self._interpreter.get_tensor_details()}
        counts: Counter[tuple[str, str]] = Counter()
        for operation in self._interpreter._get_ops_details():
            if operation["op_name"] in _CONVOLUTIONS:
                counts["Convolution", "i8" if kinds[operation["outputs"][0]] == np.int8 else "f32"] += 1
        return counts

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        frame = np.bitwise_xor(inputs["src"], _SIGN).view(np.int8)  # a byte less 128
        try:
            self._interpreter.set_tensor(self._inputs["src"]["index"], frame)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ExportError(f"{self.file} cannot be computed ({shortened(error)}): export again") from error
        found = {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
        for after, before in self._memory.items():
            self._interpreter.set_tensor(self._inputs[before]["index"], found.pop(after))
        return found


def _read(file: Path) -> tuple[bytes, dict[str, str]]:
    """A file's content and what it says about itself. LiteRT trusts what it opens: what is damaged is refused here."""
    if not file.is_file():
        raise ExportError(f"{file} is missing: give a file that `ptq4vm export target=litert` wrote")
    content = file.read_bytes()
    if content[4:8] != _MAGIC:
        raise ExportError(f"{file} is no LiteRT file or is damaged: export again")
    found = list(re.finditer(rb'"%b": "([0-9a-f]{8})"\}' % CHECKSUM.encode(), content))
    if not found:
        raise ExportError(f"{file} is damaged or another program's: give a file that `ptq4vm export` wrote")
    first, last = found[-1].span(1)
    if zlib.crc32(content[last:], zlib.crc32(b"0" * 8, zlib.crc32(content[:first]))) != int(found[-1][1], 16):
        raise ExportError(f"{file} is damaged: export again")
    schema = needed("ai_edge_litert.schema_py_generated", "litert")
    model = schema.Model.GetRootAsModel(content, 0)
    entries = [model.Metadata(place) for place in range(model.MetadataLength())]
    place = next(entry.Buffer() for entry in entries if entry.Name().decode() == METADATA)
    said = json.loads(model.Buffers(place).DataAsNumpy().tobytes())
    return content, {key: str(value) for key, value in said.items() if key != CHECKSUM}
