"""Exported OpenVINO files run by OpenVINO."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq4vm.engines.costs.openvino import Times, operations, times
from ptq4vm.engines.costs.operation import Costs, Frames, matte_all
from ptq4vm.engines.registry import ENGINES
from ptq4vm.engines.step import Port, StepEngine, Tensors
from ptq4vm.errors import ConfigError, ExportError, shortened
from ptq4vm.limits import check_threads
from ptq4vm.system.extras import needed

RT_INFO = "ptq4vm"
"""Where the metadata is in a model's runtime information."""


@ENGINES.register("openvino")
class OpenVinoEngine(StepEngine):
    """OpenVINO on the CPU.

    Args:
        file: The ``.xml`` from ``ptq4vm export target=openvino`` (its ``.bin`` beside it), or an exported ``.onnx``.
        threads: CPU threads; as many as OpenVINO likes when not given.
        precision: What computes in float: ``f32``, or ``bf16`` where the CPU has it.
        profile: Whether every operation's time is taken.

    Raises:
        ExportError: The file is missing, damaged, or not one of ours.
        ConfigError: openvino is not installed, or a value is out of range.
    """

    title = "OpenVINO"
    package = "openvino"
    suffixes = (".xml", ".onnx")
    precisions = ("f32", "bf16")
    uses_onednn = True

    def __init__(
        self, file: str | Path, threads: int | None = None, precision: str = "f32", profile: bool = False
    ) -> None:
        check_threads(threads)
        if precision not in self.precisions:
            raise ConfigError(f"precision={precision!r} is unknown: use one of {', '.join(self.precisions)}")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": 1,
            "PERF_COUNT": profile,
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._core, self._settings = needed("openvino", "openvino").Core(), settings
        model = read_model(Path(file), self._core)
        self._compile(model, Path(file))
        inputs = [
            Port(i.get_any_name(), tuple(None if d.is_dynamic else d.get_length() for d in i.get_partial_shape()))
            for i in self._compiled.inputs
        ]
        outputs = [output.get_any_name() for output in self._compiled.outputs]
        super().__init__(file, inputs, outputs, read_metadata(model))

    def _compile(self, model: Any, file: Path) -> None:
        """Let the CPU run a model of ``file`` from now on."""
        try:
            self._compiled = self._core.compile_model(model, "CPU", self._settings)
        except RuntimeError as error:
            raise ExportError(f"{file} cannot be compiled ({shortened(error, end=True)}): export again") from error
        self._request = self._compiled.create_infer_request()

    def _rebuild(self, size: tuple[int, int], inputs: Sequence[Port]) -> None:
        """See :meth:`StepEngine.reshape`: OpenVINO tells all shapes, of states inside too, from those of the inputs."""
        model = read_model(self.file, self._core)
        try:
            model.reshape({port.name: list(port.shape) for port in inputs})
        except RuntimeError as error:
            raise ExportError(
                f"{self.file} cannot be re-shaped ({shortened(error, end=True)}): export again"
            ) from error
        self._compile(model, self.file)

    @classmethod
    def files(cls, file: Path) -> tuple[Path, ...]:
        """All files that make up an exported one: an ``.xml`` and its ``.bin``, or the one ``.onnx``."""
        return (file, file.with_suffix(".bin")) if file.suffix == cls.suffixes[0] else (file,)

    @classmethod
    def costs(cls, file: Path, frames: Frames, threads: int | None = None, warm_up: int = 0) -> Costs:
        """See :meth:`StepEngine.costs`."""
        engine, before = cls(file, threads, profile=True), [Times({}, 0)]
        frame = matte_all(engine, frames, warm_up, lambda: before.append(times(engine._compiled, warm_up)))
        after = times(engine._compiled, warm_up + len(frames))
        return Costs(operations(engine._compiled, before[-1], after), frame)

    def reset(self) -> None:
        """Start the next frame from zero states, wherever they are kept."""
        super().reset()
        self._request.reset_state()

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        try:
            results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)  # copied below, once
        except RuntimeError as error:
            raise ExportError(f"{self.file} cannot be computed ({shortened(error, end=True)}): export again") from error
        return {output.get_any_name(): np.array(value) for output, value in results.items()}

    def layer_results(
        self, feeds: Mapping[str, NDArray[np.float32]], names: Sequence[str], earlier: Sequence[NDArray[np.uint8]] = ()
    ) -> Tensors:
        """See :meth:`StepEngine.layer_results`; layers that the conversion joined with others are left out."""
        core = needed("openvino", "openvino").Core()
        model = read_model(self.file, core)
        made = {name for op in model.get_ops() for output in op.outputs() for name in output.get_names()}
        found = [name for name in names if name in made]
        given = {name for output in model.outputs for name in output.get_names()}
        model.add_outputs([name for name in found if name not in given])
        request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        if self._ports["src"].rows_first:  # states are inside, pictures as they lie in memory
            for frame in earlier:
                request.infer({"src": np.ascontiguousarray(frame)[None]})
            feeds = {"src": np.ascontiguousarray((feeds["src"] * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))}
        results = request.infer(dict(feeds))
        told = {name: np.array(results[name]) for name in found}
        pictures = [name for name in found if name in given and self._ports["src"].rows_first]
        return told | {name: told[name].transpose(0, 3, 1, 2) for name in pictures}

    def executed_types(self) -> Counter[tuple[str, str]]:
        """See :meth:`MattingEngine.executed_types`."""
        counts: Counter[tuple[str, str]] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            if "runtimePrecision" in info:
                counts[info["layerType"].astype(str), info["runtimePrecision"].astype(str)] += 1
        return counts


def read_model(file: Path, core: Any = None) -> Any:
    """Read a ``.xml`` or ``.onnx`` file, with 8-bit constants where it has packed 4-bit ones.

    Args:
        file: What to read.
        core: OpenVINO's, where there is one already.

    Raises:
        ExportError: It is missing or damaged.
        ConfigError: openvino is not installed.
    """
    for needs in OpenVinoEngine.files(file):
        if not needs.is_file():
            raise ExportError(f"{needs} is missing: give a file that `ptq4vm export target=openvino` wrote")
    core = core or needed("openvino", "openvino").Core()
    try:
        model = core.read_model(file)
    except RuntimeError as error:
        raise ExportError(
            f"{file} cannot be read or is damaged ({shortened(error, end=True)}): export again"
        ) from error
    _unpack_int4(model)
    return model


def _unpack_int4(model: Any) -> None:
    """Turn 4-bit constants into 8-bit ones, in place: OpenVINO's integer convolutions take no others.

    The file keeps two codes to a byte, the first in the low half; the network in memory has one.
    """
    openvino = needed("openvino", "openvino")
    for constant in [op for op in model.get_ops() if op.get_type_name() == "Constant"]:
        if constant.get_element_type() != openvino.Type.i4:
            continue
        shape = list(constant.get_output_shape(0))
        pairs = constant.get_data().ravel().astype(np.int8)
        halves = np.stack([pairs << 4 >> 4, pairs >> 4], 1).ravel()[: math.prod(shape)]
        wide = openvino.opset15.constant(halves.reshape(shape), openvino.Type.i8)
        for reader in list(constant.output(0).get_target_inputs()):
            reader.replace_source_output(wide.output(0))
    model.validate_nodes_and_infer_types()


def read_metadata(model: Any) -> dict[str, str]:
    """What an exported model says about itself; empty for one that says nothing."""
    if not model.has_rt_info([RT_INFO]):
        return {}
    return {str(key): str(value) for key, value in model.get_rt_info([RT_INFO]).value.items()}
