"""OpenVINO's attention written over a query that is computed from constants: one request, the same inputs, four times.

    python benchmarks/openvino_inplace.py

The query is 8-bit codes times a scale, as a weight is stored, so that OpenVINO computes it once for all. Every line has
the largest difference of each of the four results from the first, with the kernels that join operations ("snippets")
and without them, for a query that is computed, is a constant, is an input, and for a result of another shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset15 as ops

HEADS, QUERIES, TOKENS, WIDTH = 4, 4, 24, 32
STEP = 1 / 40


def attention(query: str, width: int) -> Any:
    """``softmax(q k') v`` with a query of one kind, and values of ``width`` channels."""
    random, kind = np.random.default_rng(0), openvino.Type.f32
    codes = random.integers(-127, 128, (1, HEADS, QUERIES, WIDTH)).astype(np.int8)
    keys = ops.parameter([1, HEADS, TOKENS, WIDTH], kind, name="k")
    values = ops.parameter([1, HEADS, TOKENS, width], kind, name="v")
    inputs = [keys, values]
    if query == "computed":
        asking = ops.multiply(ops.convert(ops.constant(codes), kind), ops.constant(np.float32(STEP)))
    elif query == "constant":
        asking = ops.constant(codes.astype(np.float32) * np.float32(STEP))
    else:
        asking = ops.parameter(list(codes.shape), kind, name="q")
        inputs.append(asking)
    weights = ops.softmax(ops.matmul(asking, keys, False, True), -1)
    return openvino.Model([ops.result(ops.matmul(weights, values, False, False))], inputs)


def drift(model: Any, snippets: bool) -> list[float]:
    """Largest difference of each of four results from the first."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({} if snippets else {"SNIPPETS_MODE": "DISABLE"})}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    random = np.random.default_rng(1)
    feeds = {p.get_friendly_name(): random.standard_normal(p.get_shape(), np.float32) for p in model.get_parameters()}
    results = [np.array(request.infer(feeds)[0]) for _ in range(4)]
    return [round(float(np.abs(result - results[0]).max()), 4) for result in results]


def main() -> None:
    """Print a table."""
    print(f"OpenVINO {openvino.__version__}")
    for query, width in (("computed", WIDTH), ("computed", WIDTH // 2), ("constant", WIDTH), ("input", WIDTH)):
        for snippets in (True, False):
            found = drift(attention(query, width), snippets)
            print(f"query {query}, values of {width} channels, snippets {'on' if snippets else 'off'}: {found}")


if __name__ == "__main__":
    main()
