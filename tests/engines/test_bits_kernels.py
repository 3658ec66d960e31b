"""Kernels of ``.bits`` programs against plain NumPy: any channels, size, stride, dilation, chain, number of threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from ptq4vm.engines.bits.layout import pack_channels
from ptq4vm.engines.bits.machine import Operation, grouped
from ptq4vm.engines.bits.program import Program

THREADS = st.sampled_from([1, 2, 5])
Arrays = dict[str, np.ndarray]


def ran(nodes: list[dict[str, Any]], inputs: Arrays, arrays: Arrays, outputs: list[str], threads: int = 1) -> Arrays:
    """Results of a program, twice over, since memory is used again."""
    ports = {name: list(value.shape) for name, value in inputs.items()}
    program = Program({"inputs": ports, "outputs": outputs, "nodes": nodes}, arrays, threads)
    program.run({name: np.full((1, *value.shape), 7, np.float32) for name, value in inputs.items()})
    return {name: value[0] for name, value in program.run({n: v[None] for n, v in inputs.items()}).items()}


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> dict[str, Any]:
    return {"op": kind, "in": inputs, "out": [output], **attributes}


def binary(source: str, output: str, weights: np.ndarray, arrays: Arrays, stride: int = 1, dilation: int = 1,
           groups: int = 1, bias: bool = True) -> dict[str, Any]:  # fmt: skip
    """A binary convolution; its bits, factors and biases go into ``arrays``."""
    generator = np.random.default_rng(len(weights))
    arrays[f"{output}.bits"] = np.packbits(weights.ravel() > 0)
    arrays[f"{output}.s"] = generator.normal(size=(len(weights), 1, 1)).astype(np.float32)
    arrays[f"{output}.b"] = generator.normal(size=(len(weights), 1, 1)).astype(np.float32)
    names = [source, f"{output}.s", *([f"{output}.b"] if bias else [])]
    geometry = {"stride": stride, "dilation": dilation, "groups": groups}
    padding = weights.shape[2] // 2 * dilation
    return node(
        "BinaryConv", names, output, bits=f"{output}.bits", shape=list(weights.shape), padding=padding, **geometry
    )


def convolved(x: np.ndarray, weights: np.ndarray, stride: int, dilation: int, groups: int = 1) -> np.ndarray:
    """A convolution, product by product, in float64."""
    outputs, _, taps, _ = weights.shape
    edge = taps // 2 * dilation
    padded = np.pad(x.astype(np.float64), ((0, 0), (edge, edge), (edge, edge)))
    height, width = ((size + 2 * edge - dilation * (taps - 1) - 1) // stride + 1 for size in x.shape[1:])
    found = np.zeros((outputs, height, width))
    for down in range(taps):
        for across in range(taps):
            top, left = down * dilation, across * dilation
            seen = padded[:, top : top + stride * height : stride, left : left + stride * width : stride]
            seen = seen[:, :height, :width]
            weight = weights[:, :, down, across].astype(np.float64)
            found += weight[:, 0, None, None] * seen if groups > 1 else np.einsum("oc,chw->ohw", weight, seen)
    return found


def finished(sums: np.ndarray, arrays: Arrays, name: str, bias: bool = True) -> np.ndarray:
    """Whole sums times their factor, plus their bias, rounded after each."""
    scaled = sums.astype(np.float32) * arrays[f"{name}.s"]
    return scaled + arrays[f"{name}.b"] if bias else scaled


def signs_of(x: np.ndarray, shift: np.ndarray, low: int) -> np.ndarray:
    return np.where(x + shift >= np.float32(0.5 if low == 0 else 0), 1.0, float(low))


@settings(max_examples=60, deadline=None)
@given(
    channels=st.sampled_from([1, 3, 31, 32, 35, 64, 70]),
    outputs=st.sampled_from([1, 5, 8, 20]),
    stride=st.sampled_from([1, 2, 3]),
    dilation=st.sampled_from([1, 2]),
    taps=st.sampled_from([1, 3, 5]),
    low=st.sampled_from([-1, 0]),
    size=st.sampled_from([(9, 7), (1, 1), (12, 40), (33, 64), (5, 97)]),
    bias=st.booleans(),
    alone=st.booleans(),
    threads=THREADS,
)
def test_binary_convolutions_of_any_shape(
    channels: int, outputs: int, stride: int, dilation: int, taps: int, low: int, size: tuple[int, int], bias: bool,
    alone: bool, threads: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(channels + 2 * size[1])
    x = generator.normal(size=(channels, *size)).astype(np.float32)
    shape = (channels, 1, taps, taps) if alone and channels > 1 else (outputs, channels, taps, taps)
    groups = channels if shape[1] == 1 and channels > 1 else 1
    weights = generator.choice([-1.0, 1.0], shape).astype(np.float32)
    shift = generator.normal(size=(channels, 1, 1)).astype(np.float32)
    arrays = {"shift": shift}
    nodes = [
        node("Sign", ["x", "shift"], "signs", low=float(low)),
        binary("signs", "y", weights, arrays, stride, dilation, groups, bias),
    ]
    found = ran(nodes, {"x": x}, arrays, ["y"], threads)["y"]
    sums = convolved(signs_of(x, shift, low), weights, stride, dilation, groups)
    assert np.array_equal(found, finished(sums, arrays, "y", bias))


def test_signs_are_read_with_several_strides_and_edges() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 11, 35)).astype(np.float32)
    arrays: Arrays = {"shift": np.zeros((1, 1, 1), np.float32)}
    nodes, wanted = [node("Sign", ["x", "shift"], "signs", low=-1.0)], {}
    for number, (taps, stride, dilation) in enumerate([(3, 1, 2), (3, 2, 1), (1, 1, 1), (3, 1, 1), (1, 2, 1)]):
        weights = generator.choice([-1.0, 1.0], (6, 40, taps, taps)).astype(np.float32)
        nodes.append(binary("signs", f"y{number}", weights, arrays, stride, dilation))
        sums = convolved(signs_of(x, arrays["shift"], -1), weights, stride, dilation)
        wanted[f"y{number}"] = finished(sums, arrays, f"y{number}")
    found = ran(nodes, {"x": x}, arrays, list(wanted), 2)
    for name, value in wanted.items():
        assert np.array_equal(found[name], value), name


@settings(max_examples=30, deadline=None)
@given(
    channels=st.sampled_from([1, 3, 16]),
    outputs=st.sampled_from([4, 9, 16]),
    taps=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    exact=st.booleans(),
    made=st.booleans(),
    size=st.sampled_from([(9, 7), (12, 64), (5, 97)]),
    threads=THREADS,
)
def test_float_convolutions(
    channels: int, outputs: int, taps: int, stride: int, exact: bool, made: bool, size: tuple[int, int], threads: int
) -> None:
    """Behind an input, and behind a chain whose result has its edge already."""
    generator = np.random.default_rng(channels)
    stride = stride if exact else 1
    x = generator.normal(size=(channels, *size)).astype(np.float32)
    weight = generator.normal(size=(outputs, channels, taps, taps)).astype(np.float32)
    arrays = {"w.w": weight, "w.b": generator.normal(size=outputs).astype(np.float32)}
    arrays["two"] = np.full((channels, 1, 1), 2, np.float32)
    nodes = [node("Mul", ["x", "two"], "made")] if made else []
    geometry = {"stride": stride, "padding": taps // 2, "shape": list(weight.shape), "weight": "w"}
    nodes.append(node("ExactConv" if exact else "Conv", ["made" if made else "x"], "y", **geometry))
    nodes.append(node("Relu", ["y"], "z"))
    found = ran(nodes, {"x": x}, arrays, ["z"], threads)["z"]
    wanted = np.maximum(convolved(2 * x if made else x, weight, stride, 1) + arrays["w.b"][:, None, None], 0)
    np.testing.assert_allclose(found, wanted, atol=1e-7 if exact else 1e-4, rtol=1e-6)
    if exact:
        assert np.array_equal(found, wanted.astype(np.float32))


def test_a_mask_leaves_out_what_is_not_needed() -> None:
    """Factors are infinite: what was computed outside of the mask is NaN, what was not is 0."""
    generator = np.random.default_rng(3)
    x = np.zeros((4, 8, 16), np.float32)
    x[:, 3, 3] = 50
    signs = generator.normal(size=(35, 32, 64)).astype(np.float32)
    arrays: Arrays = {"limit": np.full((1, 1, 1), 0.5, np.float32), "shift": np.zeros((1, 1, 1), np.float32)}
    weights = generator.choice([-1.0, 1.0], (5, 35, 3, 3)).astype(np.float32)
    nodes = [
        node("Mask", ["x", "limit"], "m"),
        node("Resize", ["m"], "mask", factor=4),
        node("Sign", ["s", "shift"], "signs", low=-1.0),
        binary("signs", "y", weights, arrays, bias=False),
        node("Mul", ["mask", "y"], "z"),
    ]
    wanted = finished(convolved(signs_of(signs, arrays["shift"], -1), weights, 1, 1), arrays, "y", bias=False)
    for threads in (1, 3):
        found = ran(nodes, {"x": x, "s": signs}, arrays, ["z", "mask", "m"], threads)
        assert 0 < found["m"].mean() < 0.25
        assert np.array_equal(found["mask"], found["m"].repeat(4, 1).repeat(4, 2))
        assert np.array_equal(found["z"], wanted * found["mask"])
    arrays["y.s"] = np.full((5, 1, 1), np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        found = ran(nodes, {"x": x, "s": signs}, arrays, ["z", "mask"])
    needed = found["mask"][0].reshape(32, 2, 32).max(2).repeat(32, 1) > 0
    assert np.array_equal(found["z"] == 0, np.broadcast_to(~needed, found["z"].shape))


@pytest.mark.parametrize("outputs", [4, 19])
@pytest.mark.parametrize("floats", [False, True])
def test_the_sparse_half_is_added_where_it_is_needed(floats: bool, outputs: int) -> None:
    generator = np.random.default_rng(5)
    x, signs = np.zeros((4, 8, 12), np.float32), generator.normal(size=(7, 32, 48)).astype(np.float32)
    x[:, 3, 3:5] = 50
    limit, shift = np.full((1, 1, 1), 0.5, np.float32), np.zeros((1, 1, 1), np.float32)
    arrays: Arrays = {"limit": limit, "shift": shift}
    sparse, dense = (generator.choice([-1.0, 1.0], (outputs, 7, n, n)).astype(np.float32) for n in (3, 1))
    nodes = [node("Mask", ["x", "limit"], "m"), node("Resize", ["m"], "mask", factor=4)]
    if floats:
        for name, weight in (("a", sparse), ("b", dense)):
            arrays |= {f"{name}.w": weight, f"{name}.b": generator.normal(size=outputs).astype(np.float32)}
            geometry = {"stride": 1, "padding": weight.shape[2] // 2, "shape": list(weight.shape), "weight": name}
            nodes.append(node("Conv", ["s"], name, **geometry))
        halves = [convolved(signs, w, 1, 1) + arrays[f"{n}.b"][:, None, None] for n, w in (("a", sparse), ("b", dense))]
    else:
        nodes += [node("Sign", ["s", "shift"], "signs", low=-1.0), binary("signs", "a", sparse, arrays)]
        nodes.append(binary("signs", "b", dense, arrays))
        bits = signs_of(signs, shift, -1)
        halves = [finished(convolved(bits, w, 1, 1), arrays, n) for n, w in (("a", sparse), ("b", dense))]
    nodes += [node("Mul", ["mask", "a"], "ma"), node("Add", ["ma", "b"], "sum"), node("Relu", ["sum"], "z")]
    for threads in (1, 3):
        found = ran(nodes, {"x": x, "s": signs}, arrays, ["z", "mask"], threads)
        assert 0 < found["mask"].mean() < 0.25
        wanted = np.maximum(halves[0] * found["mask"] + halves[1], 0)
        np.testing.assert_allclose(found["z"], wanted, atol=1e-4 if floats else 0, rtol=0)


def elementwise(values: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Chains as the networks have them, and what NumPy gives."""
    x, y, b, s, half = (values[name] for name in ("x", "y", "b", "s", "half"))
    nodes = [
        node("Concat", ["y", "y"], "yy"),
        node("Mul", ["s", "yy"], "scaled"),
        node("Add", ["x", "scaled"], "a"),
        node("Sub", ["a", "b"], "c"),
        node("PRelu", ["c", "s"], "d"),
        node("Add", ["d", "b"], "e"),
        {"op": "Split", "in": ["e"], "out": ["e1", "e2"], "parts": [len(y), len(y)]},
        node("Add", ["e1", "e2"], "f"),
        node("Mul", ["f", "half"], "g"),
        node("Sub", ["half", "g"], "h"),
        node("Div", ["h", "y"], "i"),
        node("Clip", ["i"], "out", low=-1.0, high=1.0),
    ]
    a = x + np.concatenate([y, y]) * s
    c = a - b
    e = np.where(c >= 0, c, c * s) + b
    g = (e[: len(y)] + e[len(y) :]) * half
    return nodes, np.clip((half - g) / y, -1, 1)


@pytest.mark.parametrize("size", [(6, 32), (5, 43), (70, 97)])
def test_chains_round_as_numpy_does(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(size[1])
    shapes = {"x": (6, *size), "y": (3, *size), "b": (6, 1, 1), "s": (6, 1, 1)}
    values = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    values["half"] = np.full((1, 1, 1), 0.5, np.float32)
    nodes, wanted = elementwise(values)
    inputs = {name: values[name] for name in "xy"}
    arrays = {name: values[name] for name in ("b", "s", "half")}
    for threads in (1, 4):
        found = ran(nodes, inputs, arrays, ["out"], threads)["out"]
        assert np.array_equal(found, wanted.astype(np.float32))


def doubled(x: np.ndarray) -> np.ndarray:
    """Bilinear enlargement to twice the size, rows first."""
    for axis in (1, 2):
        last = x.shape[axis] - 1
        before = x.take([0, *range(last)], axis)
        behind = x.take([*range(1, last + 1), last], axis)
        near, quarter = x * np.float32(0.75), np.float32(0.25)
        shape = list(x.shape)
        shape[axis] *= 2
        x = np.stack([near + before * quarter, near + behind * quarter], axis + 1).reshape(shape)
    return x


@settings(max_examples=20, deadline=None)
@given(
    channels=st.sampled_from([(3, 5), (32, 3), (40, 30), (70, 1)]),
    size=st.sampled_from([(5, 7), (8, 32), (3, 49), (1, 1)]),
    odd=st.booleans(),
    ahead=st.booleans(),
    stride=st.sampled_from([1, 2]),
    threads=THREADS,
)
def test_signs_of_enlarged_pictures(
    channels: tuple[int, int], size: tuple[int, int], odd: bool, ahead: bool, stride: int, threads: int
) -> None:
    """Beside others, in either order; cut where the larger size is odd; and the enlarged picture itself."""
    generator = np.random.default_rng(sum(channels))
    height, width = (2 * edge - (1 if odd and edge > 1 else 0) for edge in size)
    x = generator.normal(size=(channels[0], *size)).astype(np.float32)
    y = generator.normal(size=(channels[1], height, width)).astype(np.float32)
    weights = generator.choice([-1.0, 1.0], (5, sum(channels), 3, 3)).astype(np.float32)
    arrays: Arrays = {"shift": generator.normal(size=(sum(channels), 1, 1)).astype(np.float32)}
    nodes = [
        node("Concat", ["x1", "x2"], "xx"),
        node("Double", ["xx"], "large"),
        node("Slice", ["large"], "cut", ends={"2": height, "3": width}),
        node("Concat", ["cut", "y"] if ahead else ["y", "cut"], "joined"),
        node("Sign", ["joined", "shift"], "signs", low=-1.0),
        binary("signs", "z", weights, arrays, stride),
        node("Relu", ["cut"], "seen"),
    ]
    cut = doubled(x)[:, :height, :width]
    inputs = {"x1": x[:1], "x2": x[1:], "y": y}
    wanted = np.concatenate([cut, y] if ahead else [y, cut])
    sums = convolved(signs_of(wanted, arrays["shift"], -1), weights, stride, 1)
    for outputs in (["z"], ["z", "seen"]):
        found = ran(nodes[: len(nodes) - 2 + len(outputs)], inputs, arrays, outputs, threads)
        assert np.array_equal(found["z"], finished(sums, arrays, "z"))
    assert np.array_equal(found["seen"], np.maximum(cut, 0))


def test_threads_wait_where_other_rows_are_read() -> None:
    """Of four operations on 40 rows the second reads around what the first writes, the fourth on other rows."""
    given = [(40, set(), {1}), (40, {1}, {2}), (40, {1}, {3}), (20, {3}, {4})]
    operations = [Operation(rows, 512, {}, (0,), around, written) for rows, around, written in given]
    found = grouped(operations, 3)
    assert [group[:3] for group in found] == [(0, 1, 40), (1, 3, 40), (3, 4, 20)]
    assert all(3 <= -(-rows // strip) <= rows for _, _, rows, strip in found), "something for every thread"
    assert grouped([Operation(1, 32, {}, (0,), set(), {1})], 4) == [(0, 1, 1, 1)]


def test_tensors_share_memory_only_where_none_is_needed_any_more() -> None:
    """A long chain of enlarged and halved pictures, one of which is read again at its end."""
    x = np.random.default_rng(0).normal(size=(3, 12, 40)).astype(np.float32)
    arrays: Arrays = {"two": np.full((3, 1, 1), 2, np.float32)}
    nodes, results, wanted, name = [], [], x, "x"
    for number in range(6):
        nodes += [node("Double", [name], f"d{number}"), node("Relu", [f"d{number}"], f"e{number}")]
        nodes += [node("Halve", [f"e{number}"], f"h{number}"), node("Mul", [f"h{number}", "two"], f"m{number}")]
        large = np.maximum(doubled(wanted), 0)
        rows = large[:, ::2], large[:, 1::2]
        wanted = sum((row[..., ::2] + row[..., 1::2] for row in rows), np.float32(0)) * np.float32(0.25)
        wanted, name = wanted * 2, f"m{number}"
        results.append(wanted)
    nodes.append(node("Add", [name, "m0"], "out"))
    for threads in (1, 3):
        assert np.array_equal(ran(nodes, {"x": x}, arrays, ["out"], threads)["out"], wanted + results[0])
    described = {"inputs": {"x": list(x.shape)}, "outputs": ["out"], "nodes": nodes}
    arena = Program(described, arrays, 1)._arena
    places = [where for where, _ in arena.made]
    assert len(set(places)) < len(places) / 2


def test_a_bit_is_where_its_channel_says() -> None:
    signs = np.zeros((1, 70, 1), np.uint8)
    signs[0, [0, 33, 69]] = 1
    assert pack_channels(signs)[0, :, 0].tolist() == [1, 2, 1 << 5]
