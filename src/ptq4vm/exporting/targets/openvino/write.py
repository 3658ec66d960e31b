"""From the ONNX graph to OpenVINO's files: an ``.xml`` with the graph and a ``.bin`` with integer weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptq4vm.engines.files.openvino import RT_INFO
from ptq4vm.errors import SaveError
from ptq4vm.system.extras import needed


def write_model(graph: Any, out: Path, metadata: Mapping[str, str], zeros: Mapping[str, int]) -> None:
    """Write ``out`` (``.xml``) and its ``.bin``; an earlier pair stays whole until both are written.

    Args:
        graph: The ``onnx.ModelProto`` to convert.
        out: File for the graph, whose name ends in ``.xml``; the ``.bin`` goes beside it.
        metadata: Text by key that becomes the runtime information ``ptq4vm``.
        zeros: The code of 0 of every state that enters the graph as codes, by name (``r1i``, ...): the file becomes
            one for video, which keeps them inside. Empty: inputs and outputs are those of ``graph``.

    Raises:
        ConfigError: openvino is not installed.
        SaveError: A file cannot be written.
    """
    openvino = needed("openvino", "openvino")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as folder:
            source, target = Path(folder) / "graph.onnx", Path(folder) / out.name
            source.write_bytes(graph.SerializeToString())
            model = openvino.convert_model(source)
            if zeros:
                model = _for_video(openvino, model, zeros)
            for key, value in metadata.items():
                model.set_rt_info(value, [RT_INFO, key])
            openvino.save_model(model, target, compress_to_fp16=False)
            del model  # it maps the ONNX file
            for suffix in (".bin", ".xml"):
                target.with_suffix(suffix).replace(out.with_suffix(suffix))
    except (OSError, RuntimeError) as error:
        raise SaveError(f"cannot write {out}: {' '.join(str(error).split())[:200]}") from error


def _for_video(openvino: Any, model: Any, zeros: Mapping[str, int]) -> Any:
    """Pictures as they lie in memory, and states inside, which begin with the code of 0."""
    _resize_instead_of_pooling(openvino, model)
    processor = openvino.preprocess.PrePostProcessor(model)
    rows_first, planes = openvino.Layout("NHWC"), openvino.Layout("NCHW")
    source = processor.input("src")
    source.tensor().set_element_type(openvino.Type.u8).set_layout(rows_first)
    source.model().set_layout(planes)
    source.preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    for name in ("fgr", "pha"):
        processor.output(name).model().set_layout(planes)
        processor.output(name).tensor().set_layout(rows_first)
    model = processor.build()
    _keep_states(openvino, model, zeros)  # afterwards: the processor computes constants, and would store whole states
    return model


def _resize_instead_of_pooling(openvino: Any, model: Any) -> None:
    """Halve pictures of even size by bilinear resizing: the same means, without another layout of three channels."""
    ops = openvino.opset15
    for pool in [op for op in model.get_ops() if op.get_type_name() == "AvgPool"]:
        height, width = list(pool.get_input_shape(0))[2:]
        halved = list(pool.get_output_shape(0))[2:] == [height / 2, width / 2]
        if not halved or list(pool.get_attributes()["kernel"]) != [2, 2]:
            continue
        half, axes = ops.constant([0.5, 0.5], openvino.Type.f32), ops.constant([2, 3], openvino.Type.i64)
        resized = ops.interpolate(
            pool.input_value(0).get_node(), half, "linear_onnx", "scales",
            axes=axes, coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
        for reader in list(pool.output(0).get_target_inputs()):
            reader.replace_source_output(resized.output(0))


def _keep_states(openvino: Any, model: Any, zeros: Mapping[str, int]) -> None:
    """Replace the inputs and outputs of the states by variables, whose sizes follow the frame's where they can."""
    ops = openvino.opset15
    source = next(p for p in model.get_parameters() if "src" in p.output(0).get_names())
    size = list(source.get_output_shape(0))[1:3]
    here = ops.gather(ops.shape_of(source), *(ops.constant(each, openvino.Type.i64) for each in ([1, 2], 0)))
    for name, zero in zeros.items():
        parameter = next(p for p in model.get_parameters() if name in p.output(0).get_names())
        result = next(r for r in model.get_results() if f"{name[:-1]}o" in r.output(0).get_names())
        shape, kind = list(parameter.get_output_shape(0)), parameter.get_output_element_type(0)
        whole = ops.constant(shape, openvino.Type.i64)
        if not any(length % own for length, own in zip(size, shape[2:], strict=True)):
            strides = ops.constant(
                [length // own for length, own in zip(size, shape[2:], strict=True)], openvino.Type.i64
            )
            whole = ops.concat([ops.constant(shape[:2], openvino.Type.i64), ops.divide(here, strides)], 0)
        first = ops.broadcast(ops.constant(zero, kind), whole)  # not a constant of this size, which would be stored
        state = ops.read_value(first, name[:-1], kind, shape)
        for reader in list(parameter.output(0).get_target_inputs()):
            reader.replace_source_output(state.output(0))
        assign = ops.assign(result.input_value(0).get_node(), name[:-1])
        model.remove_result(result)
        model.remove_parameter(parameter)
        model.add_sinks([assign])
