"""Signed grids: the zero point in the middle whatever was seen, and ranges searched with the codes that are left."""

from __future__ import annotations

import pytest
import torch

from ptq4vm.quant.functional import choose_qparams, choose_shared_qparams, symmetric_range
from ptq4vm.quant.insert import activation_quantizers_of
from ptq4vm.quant.observers import activation_observer
from ptq4vm.quant.observers.base import Observer
from ptq4vm.quant.placement.plan import Plan, Site
from ptq4vm.quant.quantizers.base import SiteRanges
from ptq4vm.quant.quantizers.uniform import UniformQuantizer
from ptq4vm.quant.registries import OBSERVERS
from ptq4vm.quant.spec import ActivationSpec, QuantSpec, spec_from_values, spec_values

SIGNED = ActivationSpec(8, asymmetric=False, signed=True)


def positive(seed: int = 0) -> torch.Tensor:
    return torch.rand(4, 8, 12, 12, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("name", ["minmax", "percentile", "mse", "tdscore"])
@pytest.mark.parametrize("signed", [True, False])
def test_observers_leave_the_zero_point_in_the_middle(name: str, signed: bool) -> None:
    spec = ActivationSpec(8, asymmetric=False, signed=signed, observer=name)
    observer: Observer = activation_observer(spec, 0)
    observer.observe(positive())
    quantizer = UniformQuantizer.from_ranges(spec, SiteRanges([observer.range()]))
    assert int(quantizer.zero_point) == (128 if signed else 0)
    error = float((quantizer(positive()) - positive()).detach().abs().max())
    step = 3 / (127 if signed else 255)
    assert error < 1.5 * step and float(quantizer.scale.detach()) == pytest.approx(step, rel=0.05)


def test_groups_share_the_middle_and_reach_their_ends() -> None:
    low, high = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 4.0])
    scale, zero = choose_shared_qparams(low, high, 255, symmetric=True, signed=True)
    assert zero == 128 and scale.tolist() == pytest.approx([2 / 255, 8 / 255])
    assert choose_shared_qparams(low, high, 255, symmetric=True)[1] == 0
    assert symmetric_range(low, high, signed=True)[0].tolist() == [-1, -4]
    assert choose_qparams(low, high, 0, 15, symmetric=True, signed=True)[1].tolist() == [8, 8]


@pytest.mark.parametrize("name", ["mse", "tdscore"])
def test_joint_observers_do_too(name: str) -> None:
    spec = ActivationSpec(8, asymmetric=False, signed=True, observer=name)
    joint = OBSERVERS[name].joint(spec, 2, 0, True)
    assert joint is not None
    joint.observe([positive(), positive(1) * 4])
    sites = {path: Site(path, path, "output", spec, group="g") for path in ("a", "b")}
    ranges = {path: [found] for path, found in zip(sites, joint.ranges(), strict=True)}
    found = activation_quantizers_of(Plan({}, sites), ranges)
    assert [int(quantizer.qparams().zero_point) for quantizer in found.values()] == [128, 128]
    assert len({float(quantizer.qparams().scale) for quantizer in found.values()}) == 1, "one scale for what is joined"


def test_specs_keep_it() -> None:
    spec = QuantSpec(activation=SIGNED)
    assert spec_from_values(spec_values(spec)) == spec
    assert "signed" not in spec_values(QuantSpec())["activation"], "files of before stay what they are"
