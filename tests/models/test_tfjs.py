from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptq4vm.errors import WeightsError
from ptq4vm.models.weights.tfjs import read_weights


def write_model(folder: Path, data: bytes) -> tuple[Path, Path]:
    entries = [
        {"name": "axis", "shape": [2], "dtype": "int32"},
        {
            "name": "w",
            "shape": [2, 2],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "min": -1.0, "scale": 0.5},
        },
        {"name": "scalar", "shape": [], "dtype": "float32"},
    ]
    graph, binary = folder / "m.json", folder / "m.bin"
    graph.write_text(json.dumps({"weightsManifest": [{"paths": ["m.bin"], "weights": entries}]}))
    binary.write_bytes(data)
    return graph, binary


DATA = np.array([1, 2], "<i4").tobytes() + bytes([0, 1, 2, 255]) + np.array(2.5, "<f4").tobytes()


def test_read_weights_dequantizes(tmp_path: Path) -> None:
    weights = read_weights(*write_model(tmp_path, DATA))
    assert weights.keys() == {"w", "scalar"}
    np.testing.assert_array_equal(weights["w"], [[-1, -0.5], [0, 126.5]])
    assert weights["scalar"] == 2.5
    assert {value.dtype.name for value in weights.values()} == {"float32"}


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b""])
def test_binary_of_another_length(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError, match=r"m\.json and m\.bin are not a TensorFlow\.js model"):
        read_weights(*write_model(tmp_path, data))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weightsManifest": [{}]}'])
def test_graph_of_another_kind(tmp_path: Path, text: str) -> None:
    graph, binary = write_model(tmp_path, DATA)
    graph.write_text(text)
    with pytest.raises(WeightsError, match="not a TensorFlow"):
        read_weights(graph, binary)
