"""INT8 files of RVM as other tools make them, for `ptq4vm benchmark files=...`.

    python benchmarks/peers.py --data ROOT --out DIR [--size 512x288] [--frames 48] [--peers fp32,ort_static,...]

Writes, beside the float network's own files (`fp32.onnx`, `fp32.xml`):

    ort_static.onnx  ONNX Runtime's static quantization: QDQ, percentile calibration, u8 activations, s8 weights by
                     channel
    nncf_mixed.xml   NNCF, preset MIXED, everything else as it is by default
    nncf_head.xml    the same with the network's head ignored: its last convolution and what comes after it
    nncf_bias.xml    the same as nncf_mixed with accurate bias correction (fast_bias_correction=False)
    nncf_accuracy.xml  with accuracy control: operations go back to float until alpha is near the float network's
    ort_entropy.onnx  as ort_static with entropy calibration

All are calibrated on the same frames of the training clips in VideoMatte's layout (ROOT/train/{fgr,pha} over
ROOT/backgrounds) with the recurrent states that the float network has at these frames. Needs the extra `peers`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import openvino
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ptq4vm import api
from ptq4vm.engines.benchmark import images
from ptq4vm.engines.files.onnx import open_session
from ptq4vm.engines.files.openvino import RT_INFO, read_metadata
from ptq4vm.ops.clips import fitted

Feed = dict[str, NDArray[np.float32]]

HEAD = "project_mat"
REFINER = "refiner"
PERCENTILE = 99.99
MOST_OFF = 5e-4  # of alpha, the mean absolute difference to the float network's that accuracy control has to hold
STRIDE = 4  # frames whose activations are in memory at a time


def calibration_feeds(session: Any, data: Path, size: tuple[int, int], frames: int) -> list[Feed]:
    """Inputs of the float network at frames spread over all training clips: frame and carried states.

    Args:
        session: Of the float network.
        data: Root in VideoMatte's layout.
        size: ``(H, W)``.
        frames: How many.
    """
    clips = api.load_data("videomatte", root=data).clips().calibration
    wanted = {int(i) for i in np.linspace(0, sum(clip.num_frames for clip in clips) - 1, frames)}
    carried = [(f"{name[:-1]}i", name) for name in (o.name for o in session.get_outputs()) if name.startswith("r")]
    shapes = {i.name: i.shape for i in session.get_inputs()}
    feeds: list[Feed] = []
    position = 0
    for source in clips:
        states = {name: np.zeros(shapes[name], np.float32) for name, _ in carried}
        for picture in images(fitted(source.read(), size)):
            src = np.ascontiguousarray(picture.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)
            feed = {"src": src, **states}
            if position in wanted:
                feeds.append(feed)
            position += 1
            found = session.run([name for _, name in carried], feed)
            states = {name: value for (name, _), value in zip(carried, found, strict=True)}
    return feeds


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands calibration frames to ONNX Runtime, a few at a time."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = feeds
        self._left: Iterator[Feed] = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Which frames come next."""
        self._left = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Feed | None:
        """The next frame."""
        return next(self._left, None)


def ort_static(out: Path, feeds: list[Feed]) -> Path:
    """ONNX Runtime's own static quantization, with percentile calibration."""
    options = {"CalibPercentile": PERCENTILE, "CalibStridedMinMax": STRIDE}
    said = f"onnxruntime static, {PERCENTILE}%"
    return _ort(out, "ort_static.onnx", said, feeds, CalibrationMethod.Percentile, options)


def ort_entropy(out: Path, feeds: list[Feed]) -> Path:
    """ONNX Runtime's own static quantization, with entropy calibration."""
    options = {"CalibStridedMinMax": STRIDE}
    return _ort(out, "ort_entropy.onnx", "onnxruntime static, entropy", feeds, CalibrationMethod.Entropy, options)


def _ort(
    out: Path, name: str, method: str, feeds: list[Feed], calibration: CalibrationMethod, options: dict[str, Any]
) -> Path:  # fmt: skip
    source, target = out / "fp32.onnx", out / name
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            target,
            Reader(feeds),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=calibration,
            extra_options=options,
        )
    model = onnx.load(target)
    said = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, {**said, "bits": "w8a8", "method": method})
    onnx.save(model, target)
    return target


def nncf_mixed(out: Path, feeds: list[Feed]) -> Path:
    """NNCF's preset MIXED."""
    return _nncf(out, "nncf_mixed.xml", "nncf mixed", feeds, nncf.quantize)


def nncf_bias(out: Path, feeds: list[Feed]) -> Path:
    """NNCF's preset MIXED with accurate bias correction."""
    return _nncf(out, "nncf_bias.xml", "nncf mixed, bias", feeds, partial(nncf.quantize, fast_bias_correction=False))


def nncf_head(out: Path, feeds: list[Feed]) -> Path:
    """NNCF's preset MIXED without the network's head."""
    names = after(openvino.Core().read_model(out / "fp32.xml"), HEAD)
    quantize = partial(nncf.quantize, ignored_scope=nncf.IgnoredScope(names=names))
    return _nncf(out, "nncf_head.xml", "nncf mixed, head ignored", feeds, quantize)


def nncf_accuracy(out: Path, feeds: list[Feed]) -> Path:
    """NNCF's preset MIXED with accuracy control, judged by alpha's distance to the float network's."""
    session = openvino.Core().compile_model(out / "fp32.xml", "CPU")
    wanted = [np.array(session(feed)["pha"]) for feed in feeds]
    known = {id(feed): alpha for feed, alpha in zip(feeds, wanted, strict=True)}

    def near(network: Any, data: Iterable[Feed]) -> tuple[float, list[float]]:
        each = [1 - float(np.abs(network(feed)["pha"] - known[id(feed)]).mean()) for feed in data]
        return float(np.mean(each)), each

    quantize = partial(
        nncf.quantize_with_accuracy_control,
        validation_dataset=nncf.Dataset(feeds),
        validation_fn=near,
        max_drop=MOST_OFF,
    )
    return _nncf(out, "nncf_accuracy.xml", f"nncf mixed, accuracy control {MOST_OFF:g}", feeds, quantize)


def _nncf(out: Path, name: str, method: str, feeds: list[Feed], quantize: Callable[..., openvino.Model]) -> Path:
    model = openvino.Core().read_model(out / "fp32.xml")
    said = read_metadata(model)
    mixed = nncf.QuantizationPreset.MIXED
    quantized = quantize(model, nncf.Dataset(feeds), preset=mixed, subset_size=len(feeds))
    for key, value in {**said, "bits": "w8a8", "method": method}.items():
        quantized.set_rt_info(value, [RT_INFO, key])
    openvino.save_model(quantized, out / name, compress_to_fp16=False)
    return out / name


def after(model: openvino.Model, part: str) -> list[str]:
    """Names of the convolution of a part of the network and of what is computed from it, and of the refiner."""
    (head,) = [o for o in model.get_ops() if o.get_type_name() == "Convolution" and part in o.get_friendly_name()]
    found, waiting = {}, [head]
    while waiting:
        op = waiting.pop()
        if op.get_type_name() != "Result" and op.get_friendly_name() not in found:
            found[op.get_friendly_name()] = op
            waiting += [i.get_node() for output in op.outputs() for i in output.get_target_inputs()]
    kept = ("Constant", "Result", "Parameter")
    refiner = [o for o in model.get_ops() if REFINER in o.get_friendly_name() and o.get_type_name() not in kept]
    return sorted({*found, *(o.get_friendly_name() for o in refiner)})


PEERS: dict[str, Callable[[Path, list[Feed]], Path]] = {
    "ort_static": ort_static,
    "nncf_mixed": nncf_mixed,
    "nncf_head": nncf_head,
    "nncf_bias": nncf_bias,
    "nncf_accuracy": nncf_accuracy,
    "ort_entropy": ort_entropy,
}


def main() -> None:
    """Write the files and print how long each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default="512x288")
    parser.add_argument("--ratio", type=float, default=1.0, help="downsample ratio, fixed in the files")
    parser.add_argument("--frames", type=int, default=48, help=f"of calibration, a multiple of {STRIDE}")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--weights")
    options = parser.parse_args()
    chosen = options.peers.split(",")
    if not set(chosen) <= set(PEERS):
        parser.error(f"--peers {options.peers}: use {', '.join(PEERS)}")
    if options.frames < 1 or options.frames % STRIDE:
        parser.error(f"--frames {options.frames} is no multiple of {STRIDE}")
    width, height = (int(side) for side in options.size.split("x"))
    for name in ("fp32.onnx", "fp32.xml"):
        values = {"downsample_ratio": options.ratio, "weights": options.weights}
        api.export("fp32", options.out / name, size=(height, width), overwrite=True, **values)
    began = time.perf_counter()
    feeds = calibration_feeds(open_session(options.out / "fp32.onnx"), options.data, (height, width), options.frames)
    print(f"{len(feeds)} calibration frames: {time.perf_counter() - began:.0f} s", flush=True)
    for name in chosen:
        began = time.perf_counter()
        path = PEERS[name](options.out, feeds)
        print(f"{path}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
