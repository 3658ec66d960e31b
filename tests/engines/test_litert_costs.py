"""What LiteRT tells of a file's operations: types, kernels and reasons, without times."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from commands import Workplace
from deploy_runs import random_quantized, spec
from networks import random_rvm
from ptq4vm.engines.benchmark import images
from ptq4vm.engines.costs.litert import FLOAT_WEIGHT, OWN, TABLE, UNTIMED, XNNPACK
from ptq4vm.engines.costs.reasons import FLOAT_FILE
from ptq4vm.engines.explaining import Explanation, explain
from ptq4vm.errors import DataError
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait

pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert.interpreter")

SIZE = (64, 96)
MACS = {
    "decoder.decode0.conv.3": 16 * 16 * 9 * 64 * 96,
    "decoder.decode4.gru.ih.0": 128 * 128 * 9 * 4 * 6,
    "backbone.features.2.block.1.0": 64 * 9 * 16 * 24,  # depthwise
    "project_mat.conv": 4 * 16 * 64 * 96,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A quantized network, and a float one."""
    folder = tmp_path_factory.mktemp("litert-costs")
    networks = {
        "integers": random_quantized(replace(spec("w8a8", "tensor", "engine"), stores="operations")),
        "floats": random_rvm("mobilenetv3", "fast_guided_filter"),
    }
    found = {name: folder / f"{name}.tflite" for name in networks}
    for name, network in networks.items():
        TARGETS["litert"]().write(network, found[name], FrameShape(*SIZE), {"overflow": "safe"})
    return found


def explained(file: Path) -> Explanation:
    return explain(file, images(moving_portrait(SIZE, 2)), 1, 1)


def test_operations_of_integers(files: dict[str, Path]) -> None:
    costs = explained(files["integers"]).costs
    found = {each.name: each for each in costs.operations if each.macs}
    assert {path: found[path].macs for path in MACS} == MACS and len(found) == 79
    floats = {path: each.reason for path, each in found.items() if each.reason}
    assert len(floats) == 2 and set(floats.values()) == {FLOAT_WEIGHT} and "project_mat.conv" in floats
    assert 0.99 < (costs.integer_macs or 0) < 1 and not costs.timed and costs.frame > 0
    assert [each.macs for each in costs.by_cost()][:3] == sorted((each.macs for each in found.values()), reverse=True)[
        :3
    ]  # type: ignore[type-var]
    assert next(iter(costs.by_reason())) == "", "integers sum up most"
    tables = Counter(each.kind for each in costs.operations if each.reason == TABLE)
    assert tables["HARD_SWISH"] == 20 and tables["DEQUANTIZE"] == tables["QUANTIZE"] == sum(tables.values()) / 3
    assert {each.type for each in costs.operations if each.kind in ("SPLIT", "RESHAPE", "CONV_2D")} == {"i8", "f32"}
    kernels = {each.name: each.kernel for each in costs.operations if each.macs}
    assert set(kernels.values()) == {XNNPACK}
    # the same codes with another scale are a way round that XNNPACK does not take
    assert {each.kind for each in costs.operations if each.kernel == OWN} <= {
        "RESHAPE",
        "PAD",
        "SPLIT",
        "CONCATENATION",
    }
    parts, own = (int(text.split()[0]) for text in costs.notes[1].split(", "))
    assert costs.notes[0] == UNTIMED and parts > 1 and own == sum(each.kernel == OWN for each in costs.operations)


def test_a_float_network_is_one(files: dict[str, Path]) -> None:
    costs = explained(files["floats"]).costs
    kinds = Counter(each.type for each in costs.operations)
    reasons = {each.reason for each in costs.operations if each.type == "f32"}
    # a frame's bytes become floats
    assert costs.integer_macs == 0 and kinds["i8"] == 1 and reasons == {FLOAT_FILE}, (kinds, reasons)


def test_no_frames_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="no frames"):
        explain(files["integers"], [], 1)


def test_the_command_has_no_column_of_times(workplace: Workplace, files: dict[str, Path], tmp_path: Path) -> None:
    done = workplace.run(
        "export", "explain", str(files["integers"]), "rows=3", "frames=2", "warm_up=0", "threads=1", f"out={tmp_path}"
    )
    assert done.status == 0, done.err
    flat = " ".join(done.out.split())
    assert "integers.tflite in LiteRT" in flat and UNTIMED in flat and "share" not in flat and "kernel" in flat
    assert "GMAC in" in flat and "a whole frame took" in flat
    stored = json.loads((tmp_path / "explain.json").read_text())
    assert stored["totals"]["milliseconds"] is None and stored["totals"]["integer_macs"] > 0.99
    assert {each["milliseconds"] for each in stored["operations"]} == {None}
    page = (tmp_path / "explain.md").read_text()
    assert "| operation | kind | type | kernel | MMAC | integers, or why not |" in page
    assert "| integers, or why not | operations | MAC |" in page
