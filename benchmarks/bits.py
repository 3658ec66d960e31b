"""Where a `.bits` file spends a frame, beside what its products would take at this CPU's peak; OpenVINO's kernel.

    python benchmarks/bits.py FILE.bits [--draw 512x288] [--threads 1] [--frames 6] [--turns 20] [--openvino]

`--draw` first writes the file: BiVM with drawn weights, its mask set on a quarter of the picture, the most that trained
ones set.

Peaks are those of the engine's own tiles on what lies in the first-level cache, on one thread. A row is an operation of
the file with what is joined to it: the least time of all turns (frames of a moving picture, the same in each turn), the
products of all its pixels, and their floor: products over peak and threads. Where a sparse layer's mask is not set its
products are left out, so that it can be below its floor; the mask's share is in the first line. `--openvino` runs the
shapes of the file's binary convolutions by OpenVINO's BinaryConvolution on one thread, its values compared with plain
sums of signs, and by the engine's kernel alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptq4vm.engines.bits import tiles
from ptq4vm.engines.bits.program import Program
from ptq4vm.engines.bits.rows import exactly
from ptq4vm.engines.costs.bits import operations
from ptq4vm.engines.files.bits import BitsEngine
from ptq4vm.exporting.targets.bits import BitsTarget
from ptq4vm.exporting.trace import FrameShape
from ptq4vm.media.portrait import draw_portrait
from ptq4vm.models.bivm.decoder import Mask, residue
from ptq4vm.models.bivm.network import BiVM
from ptq4vm.system.cpu import this_cpu

STEPS = 72


@exactly
def _binary(source: int, offsets: int, weights: int, base: int, one: int, out: int, times: int) -> None:
    for _ in range(times):
        tiles.binary_tile(source, offsets, STEPS, weights, base, 0, one, one, out, 4 * tiles.ACROSS)


@exactly
def _float(source: int, offsets: int, weights: int, base: int, one: int, out: int, times: int) -> None:
    for _ in range(times):
        tiles.float_tile(source, offsets, STEPS, weights, base, 0, one, one, out, 4 * tiles.ACROSS)


@exactly
def _exact(source: int, offsets: int, weights: int, base: int, one: int, out: int, times: int) -> None:
    for _ in range(times):
        tiles.exact_tile(source, offsets, STEPS, weights, base, 0, one, one, out, 4 * tiles.ACROSS)


def least(work: Callable[[], object], turns: int) -> float:
    """Seconds of the quickest turn."""
    found = []
    for _ in range(turns):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def peaks() -> dict[str, float]:
    """Products a second of one thread, by the kind of operation."""
    found = {}
    source, offsets = np.ones(4096, np.float32), np.arange(STEPS, dtype=np.int64) * 4
    base, one = np.zeros(tiles.ACROSS, np.int32), np.ones(8, np.float32)
    out = np.zeros((8, tiles.ACROSS), np.float32)
    kinds = {"BinaryConv": (_binary, tiles.OUTPUTS, 32), "Conv": (_float, tiles.OUTPUTS, 1)}
    for kind, (loop, outputs, bits) in {**kinds, "ExactConv": (_exact, tiles.EXACT_OUTPUTS, 1)}.items():
        weights = np.ones(STEPS * outputs, np.float64)
        given = [each.ctypes.data for each in (source, offsets, weights, base, one, out)]
        loop(*given, 1)
        spent = least(lambda loop=loop, given=given: loop(*given, 2000), 30)
        found[kind] = 2000 * STEPS * outputs * tiles.ACROSS * bits / spent
    return found


def draw(file: str, size: str) -> None:
    """Write a network that nobody trained, with statistics of its own."""
    torch.manual_seed(0)
    width, height = (int(edge) for edge in size.split("x"))
    network = BiVM().train()
    with torch.no_grad():
        network(torch.rand(1, 2, 3, 64, 96))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    network.decide()
    mask = next(module for module in network.modules() if isinstance(module, Mask))
    residues: list[torch.Tensor] = []
    mask.register_forward_pre_hook(lambda _, inputs: residues.append(residue(inputs[0])))
    states: Any = ()
    with torch.no_grad():
        for frame in draw_portrait((height, width), 4)[0]:
            states = network.matte(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255, states).states
    mask.threshold.fill_(float(torch.cat(residues).quantile(0.75)))
    BitsTarget().write(network, Path(file), FrameShape(height, width, False, 1.0), {"bits": "w1a1"})


def profile(engine: BitsEngine, frames: list[np.ndarray], turns: int) -> tuple[list[float], list[float]]:
    """Least milliseconds of every operation, and milliseconds of all frames, timed in turns of their own."""
    machine, whole, rows = engine._program.machine, [], []
    for turn in range(2 * turns + 2):
        if turn == turns + 1:
            machine.take_times()
        engine.reset()
        for number, frame in enumerate(frames):
            before = list(machine.spent) if turn > turns else []
            began = time.perf_counter()
            engine.matte(frame)
            spent = (time.perf_counter() - began) * 1e3
            if turn > turns and number:
                rows.append([1e3 * (after - least) for after, least in zip(machine.spent, before, strict=True)])
            elif turn and number:
                whole.append(spent)
    return np.array(rows).min(0).tolist(), whole


def share_of_mask(engine: BitsEngine, frame: np.ndarray) -> float:
    """On which share of a frame the mask is set, with the states that the engine has; 1 where there is none."""
    names = [node["out"][0] for node in engine._nodes if node["op"] == "Mask"]
    if not names:
        return 1.0
    program = engine._lay_out({**engine._described, "outputs": names})
    src = frame.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    return float(program.run({"src": src, **engine._states})[names[0]].mean())


def table(file: str, threads: int, count: int, turns: int, limit: int) -> None:
    """Print the profile of a file."""
    engine, peak = BitsEngine(file, threads), peaks()
    height, width = engine.frame_size or (288, 512)
    frames = list(draw_portrait((height, width), count)[0])
    milliseconds, whole = profile(engine, frames, turns)
    program = engine._program
    print(f"{this_cpu()}, {threads} threads; a frame {np.median(whole):.1f} ms ", end="")
    print(f"({np.percentile(whole, 5):.1f} to {np.percentile(whole, 95):.1f}, least {min(whole):.1f}), ", end="")
    print(f"mask set on {100 * share_of_mask(engine, frames[-1]):.0f} %")
    print("peaks on one thread: " + ", ".join(f"{kind} {each / 1e9:.0f} GMAC/s" for kind, each in peak.items()))
    pairs = zip(program.machine.operations, milliseconds, strict=True)
    rows = operations(engine._nodes, program.sizes, [(each.nodes, spent) for each, spent in pairs])
    floors = [1e3 * (row.macs or 0) / peak.get(row.kind, math.inf) / threads for row in rows]
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for row, floor in zip(rows, floors, strict=True):
        kinds[row.kind] = list(np.add(kinds[row.kind], [1, row.milliseconds, floor, (row.macs or 0) / 1e9]))
    print("\n| kind | operations | ms | floor, ms | GMAC |\n| :-- | --: | --: | --: | --: |")
    for kind, (number, spent, floor, macs) in sorted(kinds.items(), key=lambda pair: -pair[1][1]):
        print(f"| {kind} | {number:.0f} | {spent:.2f} | {floor:.2f} | {macs:.3f} |")
    sums = np.sum(list(kinds.values()), 0)
    print(f"| all | {sums[0]:.0f} | {sums[1]:.2f} | {sums[2]:.2f} | {sums[3]:.3f} |")
    print("\n| operation | ms | floor, ms | GMAC/s |\n| :-- | --: | --: | --: |")
    for row, floor in sorted(zip(rows, floors, strict=True), key=lambda pair: -pair[0].milliseconds)[:limit]:
        speed = (row.macs or 0) / max(row.milliseconds, 1e-9) / 1e6
        print(f"| {row.kind} {row.name} | {row.milliseconds:.3f} | {floor:.3f} | {speed:.0f} |")


def by_openvino(x: np.ndarray, weights: np.ndarray, stride: int) -> tuple[np.ndarray, float]:
    """Result of OpenVINO's BinaryConvolution and the milliseconds of that operation alone, least of 30.

    Weights are packed from the lowest bit on, and signs are made by a FakeQuantize with 2 levels, 0 and 1, though they
    count as -1 and 1: with -1 and 1, or bits from the highest on, the result is another.
    """
    import openvino
    from openvino import opset1

    taps = weights.shape[2]
    source = opset1.parameter(list(x[None].shape), np.float32)
    zero, one = (opset1.constant(np.full((1, 1, 1, 1), value, np.float32)) for value in (0, 1))
    bits = openvino.Tensor(openvino.Type.u1, openvino.Shape(list(weights.shape)))
    packed = np.packbits((weights > 0).ravel(), bitorder="little")
    np.asarray(bits.data).view(np.uint8).reshape(-1)[: len(packed)] = packed
    edge, steps = [taps // 2] * 2, [stride] * 2
    signs = opset1.fake_quantize(source, zero, zero, zero, one, 2)
    constant = openvino.op.Constant(bits)
    y = opset1.binary_convolution(signs, constant, steps, edge, edge, [1, 1], "xnor-popcount", 0.0)
    settings = {"INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    request = openvino.compile_model(
        openvino.Model([opset1.result(y)], [source]), "CPU", settings
    ).create_infer_request()
    times = []
    for _ in range(30):
        found = request.infer([x[None]])[0][0]
        told = [each for each in request.profiling_info if each.node_type == "BinaryConvolution"]
        times.append(sum(each.real_time.total_seconds() for each in told) * 1e3)
    return found, min(times)


def by_ours(x: np.ndarray, weights: np.ndarray, stride: int) -> tuple[np.ndarray, float]:
    """As :func:`by_openvino`, by the engine."""
    outputs, _, taps, _ = weights.shape
    arrays = {"bits": np.packbits(weights.ravel() > 0), "shift": np.full((1, 1, 1), -1e-30, np.float32)}
    arrays["scale"] = np.ones((outputs, 1, 1), np.float32)
    conv = {"op": "BinaryConv", "in": ["signs", "scale"], "out": ["y"], "bits": "bits", "shape": list(weights.shape)}
    nodes: list[Mapping[str, Any]] = [
        {"op": "Sign", "in": ["x", "shift"], "out": ["signs"], "low": -1.0},
        {**conv, "stride": stride, "padding": taps // 2, "dilation": 1, "groups": 1},
    ]
    program = Program({"inputs": {"x": list(x.shape)}, "outputs": ["y"], "nodes": nodes}, arrays, 1)
    times = []
    for _ in range(30):
        program.machine.take_times()
        found = program.run({"x": x[None]})["y"][0]
        times.append(list(program.machine.spent)[1] * 1e3)
    return found, min(times)


def signed_sums(x: np.ndarray, weights: np.ndarray, stride: int) -> np.ndarray:
    """Sums of products of signs, plainly; nothing beyond the edge."""
    taps = weights.shape[2]
    padded = np.pad(np.where(x > 0, 1.0, -1.0), ((0, 0), *[(taps // 2, taps // 2)] * 2))
    height, width = x.shape[1:]
    products = (
        np.einsum("oc,chw->ohw", weights[:, :, y, a], padded[:, y : y + height, a : a + width], optimize=True)
        for y in range(taps)
        for a in range(taps)
    )
    return np.sum(list(products), 0)[:, ::stride, ::stride]


def beside_openvino(file: str) -> None:
    """Print both kernels on the shapes of a file's binary convolutions, those with most products first."""
    engine = BitsEngine(file, 1)
    sizes, found = engine._program.sizes, {}
    for node in engine._nodes:
        if node["op"] == "BinaryConv" and node["groups"] == 1 and node["dilation"] == 1:
            found[tuple(node["shape"]), node["stride"], sizes[node["in"][0]][1:]] = None
    generator = np.random.default_rng(0)
    print("\n| binary convolution | OpenVINO, GMAC/s | its values | ours, GMAC/s | our values |")
    print("| :-- | --: | :-- | --: | :-- |")
    for shape, stride, size in sorted(found, key=lambda each: -math.prod(each[0]) * math.prod(each[2]))[:12]:
        x = generator.normal(size=(shape[1], *size)).astype(np.float32)
        weights = generator.choice([-1.0, 1.0], shape).astype(np.float32)
        wanted = signed_sums(x, weights, stride)
        macs = math.prod(shape) * math.prod(wanted.shape[1:]) / 1e6
        cells = []
        for kernel in (by_openvino, by_ours):
            result, spent = kernel(x, weights, stride)
            cells += [f"{macs / spent:.0f}", "right" if np.array_equal(result, wanted) else "wrong"]
        print(f"| {'x'.join(map(str, shape))} at {size[1]}x{size[0]}, stride {stride} | {' | '.join(cells)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--draw")
    parser.add_argument("--openvino", action="store_true")
    options = parser.parse_args()
    if options.draw:
        draw(options.file, options.draw)
    table(options.file, options.threads, options.frames, options.turns, options.rows)
    if options.openvino:
        beside_openvino(options.file)


if __name__ == "__main__":
    main()
