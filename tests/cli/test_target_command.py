"""From a quantized run for an engine to its file: one configuration says where the engine stores tensors."""

from __future__ import annotations

import pytest
import yaml

from commands import Workplace

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.make(tmp_path_factory.mktemp("target"))


def test_a_reconstructed_network_for_onnx_runtime(place: Workplace) -> None:
    run, file = place.root / "run", place.root / "a.onnx"
    done = place.quantize(run, "+target=onnx", "bits=w8a8", "method=ptq4vm", "baseline=false")
    assert done.status == 0, done.err
    spec = yaml.safe_load((run / "quantizer.yaml").read_text())["spec"]
    assert (spec["placement"], spec["stores"]) == ("engine", "operations")
    done = place.run("export", f"checkpoint={run}", "target=onnx", f"out={file}", "size=96x64")
    assert done.status == 0, done.err
    done = place.run("export", "verify", f"checkpoint={run}", f"file={file}", "frames=2", "threads=1")
    assert done.status == 0 and "passed" in done.out, done.err
