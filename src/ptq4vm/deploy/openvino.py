"""From the ONNX graph to OpenVINO's files: an ``.xml`` with the graph and a ``.bin`` with integer weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ptq4vm.deploy.engines.openvino import RT_INFO
from ptq4vm.deploy.extras import needed
from ptq4vm.deploy.graph import FrameShape, to_onnx
from ptq4vm.errors import ConfigError, SaveError
from ptq4vm.models.base import MattingNetwork


def export_openvino(network: MattingNetwork, out: Path, shape: FrameShape, metadata: Mapping[str, str]) -> None:
    """Write ``out`` (``.xml``) and its ``.bin``; an earlier pair stays whole until both are written.

    Args:
        network: From :func:`ptq4vm.api.load_checkpoint`; not changed.
        out: Must end in ``.xml``.
        shape: Of the input.
        metadata: Becomes the runtime information ``ptq4vm``.

    Raises:
        ConfigError: openvino or onnx is not installed, or ``out`` has another suffix.
        SaveError: A file cannot be written.
    """
    if out.suffix != ".xml":
        raise ConfigError(f"out={out}: OpenVINO needs a name that ends in .xml (the .bin is written beside it)")
    openvino = needed("openvino", "openvino")
    content = to_onnx(network, shape, metadata).SerializeToString()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as folder:
            source, target = Path(folder) / "graph.onnx", Path(folder) / out.name
            source.write_bytes(content)
            model = openvino.convert_model(source)
            for key, value in metadata.items():
                model.set_rt_info(value, [RT_INFO, key])
            openvino.save_model(model, target, compress_to_fp16=False)
            del model  # it maps the ONNX file
            for suffix in (".bin", ".xml"):
                target.with_suffix(suffix).replace(out.with_suffix(suffix))
    except (OSError, RuntimeError) as error:
        raise SaveError(f"cannot write {out}: {' '.join(str(error).split())[:200]}") from error
