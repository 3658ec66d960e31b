from __future__ import annotations

import pytest
import torch

from ptq4vm.models.rvm.decoder import ConvGRU
from ptq4vm.models.rvm.export import JoinedRefiner, PlainGRU, PointwiseRefiner, refiner_for, replacements
from ptq4vm.models.rvm.refiner import DeepGuidedFilterRefiner, FastGuidedFilterRefiner, GuidedFilter


@pytest.mark.parametrize("leading", [(1,), (2, 3)], ids=("frame", "clips"))
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", [FastGuidedFilterRefiner, DeepGuidedFilterRefiner])
def test_every_form_is_the_guided_filter(kind: type[GuidedFilter], target: str, leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    refiner = kind().eval()
    form = refiner_for(refiner, target)
    shaped = target == "openvino" or kind is FastGuidedFilterRefiner
    assert isinstance(form, PointwiseRefiner if target == "openvino" else JoinedRefiner) if shaped else form is refiner
    sizes = ((3, 37, 50), (3, 14, 19), (3, 14, 19), (1, 14, 19), (16, 14, 19))
    images = [torch.rand(*leading, *size) for size in sizes]
    with torch.no_grad():
        expected, found = refiner(*images), form(*images)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


def test_another_module_stays() -> None:
    module = torch.nn.Identity()
    assert refiner_for(module, "openvino") is module and refiner_for(module, "onnx") is module


@pytest.mark.parametrize("kind", [FastGuidedFilterRefiner, DeepGuidedFilterRefiner])
def test_a_target_that_nobody_knows_gets_the_refiner_itself(kind: type[GuidedFilter]) -> None:
    refiner = kind()
    assert refiner_for(refiner, "toy") is refiner


@pytest.mark.parametrize("target", ["onnx", "openvino", "litert", "toy"])
def test_the_recurrent_unit_with_its_mixture_written_out(target: str) -> None:
    torch.manual_seed(0)
    unit = ConvGRU(4)
    plain = replacements(target)[ConvGRU](unit)
    assert isinstance(plain, PlainGRU) and plain.ih is unit.ih and plain.state is unit.state
    clip, state = torch.rand(1, 3, 4, 8, 8), torch.rand(1, 4, 8, 8)
    with torch.no_grad():
        for one, other in zip(unit(clip, state), plain(clip, state), strict=True):
            torch.testing.assert_close(other, one)
