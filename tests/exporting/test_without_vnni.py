"""Exported files on CPUs without VNNI: what they say, what is said when they are opened, and what verify explains."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import Workplace
from deploy_runs import random_quantized, spec, write_run
from ptq4vm.engines.step import Port, StepEngine
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.quant.overflow import outside, pair_bounds
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec
from ptq4vm.system.cpu import VNNI, Cpu, this_cpu

onnx = pytest.importorskip("onnx")

CONVOLUTIONS = ("Conv", "MatMul", "Gemm")
OPERATIONS = QuantSpec(
    WeightSpec(8, observer="minmax"), ActivationSpec(8, observer="minmax"), "engine", stores="operations"
)


@pytest.mark.parametrize(("chosen", "target"), [(spec("w8a8", "mixed", "engine"), "openvino"), (OPERATIONS, "onnx")])
@pytest.mark.parametrize("overflow", ("safe", "vnni"))
def test_every_product_of_a_safe_file_fits(chosen: QuantSpec, target: str, overflow: str) -> None:
    """Also those that export adds: upsampling, padded channels, the head."""
    network = random_quantized(replace(chosen, overflow=overflow))
    model = TARGETS[target]().graph(network, FrameShape(64, 96))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    sources = {name: node for node in model.graph.node for name in node.output}
    bounds = {}
    for node in model.graph.node:
        source = sources.get(node.input[1]) if node.op_type in CONVOLUTIONS else None
        if source is not None and source.input[0] in tensors:
            codes = tensors[source.input[0]].astype(np.int64)
            rows = codes.T if node.op_type == "MatMul" else codes
            bounds[node.name] = pair_bounds(torch.from_numpy(rows), 255)
    assert len(bounds) >= 78
    assert any(map(outside, bounds.values())) == (overflow == "vnni")


class _Engine(StepEngine):
    """Of a file that says ``metadata``, on a CPU without VNNI."""

    def __init__(self, metadata: dict[str, str], cpu: Cpu) -> None:
        self._cpu = cpu
        super().__init__("a.onnx", [Port("src", (1, 3, 64, 96))], ["fgr", "pha"], metadata)

    @property
    def cpu(self) -> Cpu:
        return self._cpu

    def _run(self, inputs: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("metadata", "exact", "warned"),
    (
        ({"bits": "w8a8", "overflow": "safe"}, False, False),
        ({"bits": "w8a8", "overflow": "vnni"}, False, True),
        ({"bits": "w4a4"}, False, True),
        ({"bits": "w4a4"}, True, False),
        ({"bits": "fp32"}, False, False),
        ({}, False, False),
    ),
)
def test_opening_warns_by_name(
    metadata: dict[str, str], exact: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _Engine(metadata, Cpu(("avx2",), exact))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith("a.onnx was made for CPUs with VNNI") and "\n" not in lines[0]
        assert "CPU with avx2, without VNNI" in lines[0] and "overflow=safe" in lines[0]


def test_what_the_cpu_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert this_cpu(onednn=True) == this_cpu()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    held_back = this_cpu(onednn=True)
    assert not set(VNNI) & set(held_back.features) and this_cpu() == this_cpu(onednn=False)
    assert str(Cpu(("avx2", "avx_vnni"), True)) == "CPU with avx2, avx_vnni"
    assert "unknown features" in str(Cpu((), False)) and "without VNNI" in str(Cpu((), False))


@pytest.mark.skipif(sys.platform != "linux", reason="features are read from /proc")
def test_openvino_without_vnni(workplace: Workplace, tmp_path: Path) -> None:
    """A safe file passes; one with all codes of 8 bits is warned of, fails, and is explained."""
    pytest.importorskip("openvino")
    said = {}
    for overflow in ("safe", "vnni"):
        chosen = replace(spec("w8a8", "mixed", "engine"), overflow=overflow)
        run = write_run(tmp_path / overflow, chosen, workplace.data / "eval")
        file = tmp_path / f"{overflow}.xml"
        exported = workplace.run("export", f"checkpoint={run}", "target=openvino", f"out={file}", "size=96x64")
        assert exported.status == 0, exported.err
        command = ("export", "verify", f"checkpoint={run}", f"file={file}", "frames=2", "clips=1", "threads=1")
        done = subprocess.run(  # oneDNN reads the variable once in a process
            [sys.executable, "-c", "from ptq4vm.cli.main import main; raise SystemExit(main())", *command],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
            capture_output=True,
            text=True,
            check=False,
        )
        said[overflow] = done
    assert said["safe"].returncode == 0 and "passed" in said["safe"].stdout, said["safe"].stderr
    assert said["safe"].stderr == "" and "without VNNI" in said["safe"].stdout
    warning, line = said["vnni"].stderr.splitlines()
    assert said["vnni"].returncode == 1 and "vnni.xml was made for CPUs with VNNI (vnni)" in warning
    assert "cuts sums of two products off at 16 bits" in line and "overflow=safe" in line
    assert "the first layer to depart is" in line
