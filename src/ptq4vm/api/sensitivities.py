"""Sensitivity from Python: what each layer and each stored tensor costs when it alone is quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ptq4vm.api.choices import chosen_preset, load_method
from ptq4vm.api.models import Model
from ptq4vm.data.base import ClipDataset, NeedsTruth
from ptq4vm.data.calibration.datamodule import MattingDataModule
from ptq4vm.methods.method import Preset
from ptq4vm.methods.mixed_bits import looked_at
from ptq4vm.methods.sensitivity import Sensitivity, measure_sensitivity
from ptq4vm.pipeline.teacher import folded, make_truth
from ptq4vm.quant.partition import resolve
from ptq4vm.quant.spec import QuantSpec


def sensitivity(
    model: Model,
    data: ClipDataset,
    *,
    bits: str | QuantSpec = "w4a4",
    method: str = "closed_form",
    preset: str | Preset | None = None,
    widths: Sequence[int] = (4,),
    seed: int = 0,
    edges: bool = True,
) -> Sensitivity:
    """Quantize each layer's weights and each stored tensor alone, and measure how far alpha moves.

    Args:
        model: The float network, from :func:`load_model`; not changed.
        data: The data set, from :func:`load_data`; its calibration clips are looked at.
        bits: Bits as text, ``wXaY``, or every choice at once.
        method: A name in ``conf/method``, which says where quantizers stand; not looked at where ``bits`` says all.
        preset: A name in ``conf/preset``, or the schedules themselves: how calibration samples are drawn. When not
            given it is what the method's file chooses, and ``quick`` where that chooses none.
        widths: Bit-widths to measure.
        seed: Seed of samples and observers.
        edges: Whether the first and last layers, which have more bits otherwise, are measured too.

    Raises:
        PTQ4VMError: With one line that says what is wrong and what to do.
    """
    if isinstance(data, NeedsTruth):
        make_truth(data, model.network, model.partition)
    spec = bits if isinstance(bits, QuantSpec) else load_method(method, bits)[1]
    schedule = chosen_preset(preset, method)
    datamodule = MattingDataModule(data, None, **asdict(schedule.calibration), seed=seed)
    partition = resolve(model.network, model.partition)
    frames = looked_at(datamodule.calibration_batch().frames)
    return measure_sensitivity(folded(model.network, partition), partition, spec, frames, widths, seed, edges)
