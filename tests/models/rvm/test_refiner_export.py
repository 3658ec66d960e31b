from __future__ import annotations

import pytest
import torch

from ptq4vm.models.rvm.export import JoinedRefiner, PointwiseRefiner, refiner_for
from ptq4vm.models.rvm.refiner import DeepGuidedFilterRefiner, FastGuidedFilterRefiner, GuidedFilter


@pytest.mark.parametrize("leading", [(1,), (2, 3)], ids=("frame", "clips"))
@pytest.mark.parametrize("openvino", [False, True], ids=("onnx", "openvino"))
@pytest.mark.parametrize("kind", [FastGuidedFilterRefiner, DeepGuidedFilterRefiner])
def test_every_form_is_the_guided_filter(kind: type[GuidedFilter], openvino: bool, leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    refiner = kind().eval()
    form = refiner_for(refiner, openvino)
    shaped = openvino or kind is FastGuidedFilterRefiner
    assert isinstance(form, PointwiseRefiner if openvino else JoinedRefiner) if shaped else form is refiner
    sizes = ((3, 37, 50), (3, 14, 19), (3, 14, 19), (1, 14, 19), (16, 14, 19))
    images = [torch.rand(*leading, *size) for size in sizes]
    with torch.no_grad():
        expected, found = refiner(*images), form(*images)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


def test_another_module_stays() -> None:
    module = torch.nn.Identity()
    assert refiner_for(module, True) is module and refiner_for(module, False) is module
