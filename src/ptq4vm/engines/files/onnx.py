"""Exported ONNX files run by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.costs.onnx import OPTIMIZED, PREFIX, operations
from ptq4vm.engines.costs.operation import Costs, Frames, matte_all
from ptq4vm.engines.registry import ENGINES
from ptq4vm.engines.step import Port, StepEngine, Tensors
from ptq4vm.errors import ExportError, shortened
from ptq4vm.limits import check_threads
from ptq4vm.system.extras import needed

ELSEWHERE = "this file is for TensorRT: ONNX Runtime checks its numbers, and what it takes says nothing of a GPU"
"""What is to be known of the costs of a file that was made for another engine."""


@ENGINES.register("onnx")
class OnnxEngine(StepEngine):
    """ONNX Runtime on the CPU.

    Args:
        file: From ``ptq4vm export target=onnx``.
        threads: CPU threads; as many as ONNX Runtime likes when not given.
        integer_bias: True lets ONNX Runtime round biases to multiples of input scale times weight scale, as it does by
            itself. Some more convolutions then run as integers, but where few bits make that product large, alpha
            moves (twice as far from PyTorch at W4A4).
        profile: A folder for the graph that ONNX Runtime makes of the file, and the times of its operations.

    Raises:
        ExportError: The file is missing, damaged, or not one of ours.
        ConfigError: onnxruntime is not installed, or ``threads`` is not positive.
    """

    title = "ONNX Runtime"
    package = "onnxruntime"
    suffixes = (".onnx",)

    def __init__(
        self, file: str | Path, threads: int | None = None, integer_bias: bool = False, profile: Path | None = None
    ) -> None:
        check_threads(threads)
        ort = needed("onnxruntime", "onnx")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile / PREFIX)
            options.optimized_model_filepath = str(profile / OPTIMIZED)
        self._how = options, integer_bias
        self._session = open_session(Path(file), *self._how)
        inputs = [
            Port(i.name, tuple(size if isinstance(size, int) else None for size in i.shape))
            for i in self._session.get_inputs()
        ]
        self._names = [output.name for output in self._session.get_outputs()]
        try:
            said = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise ExportError(f"{file} is damaged: its metadata is no text; export again") from error
        super().__init__(file, inputs, self._names, said)

    @classmethod
    def costs(cls, file: Path, frames: Frames, threads: int | None = None, warm_up: int = 0) -> Costs:
        """See :meth:`StepEngine.costs`; needs the onnx package."""
        with tempfile.TemporaryDirectory(prefix="ptq4vm-") as folder:
            engine = cls(file, threads, profile=Path(folder))
            frame = matte_all(engine, frames, warm_up)
            profile = Path(engine._session.end_profiling())
            notes = [ELSEWHERE] if engine.metadata.get("target") == "tensorrt" else []
            return Costs(operations(file, profile, Path(folder) / OPTIMIZED, len(frames)), frame, notes)

    def layer_results(
        self, feeds: Mapping[str, NDArray[np.float32]], names: Sequence[str], earlier: Sequence[NDArray[np.uint8]] = ()
    ) -> Tensors:
        """See :meth:`StepEngine.layer_results`; needs the onnx package."""
        onnx, model = needed("onnx", "onnx"), self._model()
        made = {name for node in model.graph.node for name in node.output}
        found = [name for name in names if name in made]
        given = {value.name for value in model.graph.output}
        for name in [name for name in found if name not in given]:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        session = open_session(model.SerializeToString())
        return dict(zip(found, session.run(found, dict(feeds)), strict=True))

    def _model(self) -> Any:
        """The file as an ``onnx.ModelProto``."""
        try:
            return needed("onnx", "onnx").load_model(self.file)
        except (OSError, needed("google.protobuf.message", "onnx").DecodeError) as error:
            raise ExportError(f"{self.file} is no ONNX file or is damaged: export again") from error

    def _rebuild(self, size: tuple[int, int], inputs: Sequence[Port]) -> None:
        """See :meth:`StepEngine.reshape`: sizes stand where the graph's inputs and outputs do, and nowhere else."""
        model = self._model()
        shapes = {port.name: port.shape for port in inputs}
        shapes.update({f"{name[:-1]}o": shape for name, shape in shapes.items()})  # of states
        shapes.update({"fgr": (1, 3, *size), "pha": (1, 1, *size)})
        for value in (*model.graph.input, *model.graph.output):
            for dimension, length in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
                dimension.dim_value = length or 1
        self._session = open_session(model.SerializeToString(), *self._how)

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        try:
            return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))
        except _refusals() as error:
            raise ExportError(f"{self.file} cannot be computed ({shortened(error)}): export again") from error


def open_session(model: Path | bytes, options: Any = None, integer_bias: bool = False) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU for a file or the content of one; see :class:`OnnxEngine`.

    Raises:
        ExportError: It is missing or damaged.
        ConfigError: onnxruntime is not installed.
    """
    ort = needed("onnxruntime", "onnx")
    if isinstance(model, Path) and not model.is_file():
        raise ExportError(f"{model} is missing: give a file that `ptq4vm export target=onnx` wrote")
    source = model if isinstance(model, bytes) else str(model)
    disabled = [] if integer_bias else ["WeightBiasQuantization"]
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    except _refusals() as error:
        name = "the graph" if isinstance(model, bytes) else model
        raise ExportError(f"{name} is no ONNX file or is damaged ({shortened(error)}): export again") from error


def _refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for graphs that it cannot read or compute."""
    state = needed("onnxruntime.capi.onnxruntime_pybind11_state", "onnx")
    names = ("Fail", "InvalidArgument", "InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NotImplemented")
    return tuple(getattr(state, name) for name in (*names, "RuntimeException"))
