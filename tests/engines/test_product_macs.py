"""Products of two activations in what a file's operations cost, as each engine runs them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from networks import quantized_transformer, random_transformer
from ptq4vm.engines.benchmark import images
from ptq4vm.engines.explaining import explain
from ptq4vm.exporting.target import TARGETS
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, WeightSpec

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SIZE = (64, 96)
TOKENS, WIDTH = 4 * 6, 128
ATTENTION = 2 * WIDTH * TOKENS * (TOKENS + 2 * TOKENS + 4)  # within the frame, to the last one too, of four queries
MATTE = 16 * 4 * SIZE[0] * SIZE[1]
LAYERS = {"layers.0.attention.to_key_value": TOKENS * WIDTH * 2 * WIDTH, "memory.feed.2": TOKENS * 2 * WIDTH * WIDTH}


@pytest.mark.parametrize(("target", "stores"), [("onnx", "operations"), ("onnx", "layers"), ("openvino", "layers")])
def test_products_of_a_transformer(target: str, stores: str, tmp_path: Path) -> None:
    activation = ActivationSpec(8, observer="minmax")
    spec = QuantSpec(WeightSpec(8, observer="minmax"), activation, "engine", stores=stores)
    network = quantized_transformer(random_transformer(), spec)
    file = tmp_path / f"a{TARGETS[target].suffix}"
    TARGETS[target]().write(network, file, FrameShape(*SIZE), {"overflow": "safe", "bits": "w8a8"})
    operations = explain(file, images(moving_portrait(SIZE, 2)), 1, 1).costs.operations
    # what the engine adds to a layer's name says what it joined it with
    found = {each.name.removesuffix("/MatMulAddFusion"): each.macs for each in operations}
    assert {path: found[path] for path in LAYERS} == LAYERS
    sums = Counter[str]()
    for each in operations:
        layer = each.name.removesuffix("/MatMulAddFusion") in dict(network.named_modules())
        if "attention/" in each.name and not layer:
            sums["attention"] += each.macs or 0
        elif "decode0/" in each.name and "Conv" not in each.kind and not layer:
            sums["matte"] += each.macs or 0
    assert sums == {"attention": ATTENTION, "matte": MATTE}, [
        (each.name, each.kind, each.macs) for each in operations if each.macs
    ]
