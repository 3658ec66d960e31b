"""Exported ``.bits`` files run by kernels of our own: XNOR and popcount, 64 products at once."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ptq4vm.engines.costs.bits import operations
from ptq4vm.engines.costs.operation import Costs, Frames, matte_all
from ptq4vm.engines.registry import ENGINES
from ptq4vm.engines.step import Port, StepEngine, Tensors
from ptq4vm.errors import ExportError
from ptq4vm.limits import check_threads
from ptq4vm.system.cpu import Cpu
from ptq4vm.system.extras import needed

PROGRAM = "program"
"""Name of the tensor with the list of operations: compressed JSON."""
_LONGEST = 2**24  # bytes of it


@ENGINES.register("bits")
class BitsEngine(StepEngine):
    """Binary networks on the CPU; the sums of signs are whole numbers, exact on every CPU.

    Args:
        file: From ``ptq4vm export target=bits``.
        threads: CPU threads; all that the process may use when not given.

    Raises:
        ExportError: The file is missing, damaged, or not one of ours.
        ConfigError: Numba is not installed, or ``threads`` is not positive.
    """

    title = "ptq4vm bits"
    package = "numba"
    suffixes = (".bits",)

    def __init__(self, file: str | Path, threads: int | None = None) -> None:
        check_threads(threads)
        needed("numba", "fast")
        from ptq4vm.engines.bits.program import Program  # compiles, and needs Numba

        said, arrays = _read(Path(file))
        try:
            described = json.loads(zlib.decompressobj().decompress(arrays.pop(PROGRAM).tobytes(), _LONGEST))
            ports = [Port(name, (1, *map(int, size))) for name, size in described["inputs"].items()]
            super().__init__(file, ports, described["outputs"], said)
            self._lay_out = partial(Program, arrays=arrays, threads=threads)
            self._described, self._program = described, self._lay_out(described)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError, zlib.error) as error:
            raise ExportError(f"{file} is damaged ({type(error).__name__}: {error}): export again") from error
        self._nodes = described["nodes"]
        self._kinds = Counter(node["op"] for node in self._nodes)

    @classmethod
    def exact(cls, cpu: Cpu) -> bool:
        """See :meth:`StepEngine.exact`: on every CPU."""
        return True

    @classmethod
    def costs(cls, file: Path, frames: Frames, threads: int | None = None, warm_up: int = 0) -> Costs:
        """See :meth:`StepEngine.costs`; a loop is called by its number, its weight and its result's size."""
        engine = cls(file, threads)
        machine = engine._program.machine
        frame = matte_all(engine, frames, warm_up, machine.take_times)
        pairs = zip(machine.operations, machine.spent, strict=True)
        taken = [(each.nodes, 1e3 * spent / len(frames)) for each, spent in pairs]
        return Costs(operations(engine._nodes, engine._program.sizes, taken), frame)

    def executed_types(self) -> Mapping[tuple[str, str], int]:
        """See :meth:`MattingEngine.executed_types`: binary convolutions, and those in float."""
        floats = self._kinds["Conv"] + self._kinds["ExactConv"]
        return {("Convolution", "bin"): self._kinds["BinaryConv"], ("Convolution", "f32"): floats}

    def _rebuild(self, size: tuple[int, int], inputs: Sequence[Port]) -> None:
        """See :meth:`StepEngine.reshape`: all sizes of a program follow from those of its inputs."""
        try:
            self._program = self._lay_out({**self._described, "inputs": {port.name: port.shape[1:] for port in inputs}})
        except (KeyError, ValueError) as error:
            raise ExportError(f"{self.file} cannot be re-shaped ({error}): export again") from error

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        return self._program.run(inputs)


def _read(file: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Metadata and tensors of a file."""
    if not file.is_file():
        raise ExportError(f"{file} is missing: give a file that `ptq4vm export target=bits` wrote")
    try:
        with safe_open(file, framework="numpy") as opened:
            said = dict(opened.metadata() or {})
            arrays = {key: np.array(opened.get_tensor(key)) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ExportError(f"{file} is no .bits file or is damaged ({error}): export again") from error
    if PROGRAM not in arrays:
        raise ExportError(f"{file} has no program: give a file that `ptq4vm export target=bits` wrote")
    broken = [key for key, value in arrays.items() if value.dtype == np.float32 and not np.isfinite(value).all()]
    if broken:
        raise ExportError(f"{file}: {broken[0]!r} has a value that is not finite: export again")
    return said, arrays
