from __future__ import annotations

import pytest
import torch

from ptq4vm.deploy.refining import PointwiseRefiner
from ptq4vm.models.rvm.refiner import DeepGuidedFilterRefiner, FastGuidedFilterRefiner, GuidedFilter


@pytest.mark.parametrize("leading", [(1,), (2, 3)], ids=("frame", "clips"))
@pytest.mark.parametrize("kind", [FastGuidedFilterRefiner, DeepGuidedFilterRefiner])
def test_it_is_the_guided_filter(kind: type[GuidedFilter], leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    refiner = kind().eval()
    sizes = ((3, 37, 50), (3, 14, 19), (3, 14, 19), (1, 14, 19), (16, 14, 19))
    images = [torch.rand(*leading, *size) for size in sizes]
    with torch.no_grad():
        expected, found = refiner(*images), PointwiseRefiner(refiner)(*images)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
