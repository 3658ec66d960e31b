from __future__ import annotations

import pytest
import torch

from ptq4vm.models.rvm.layers import ImageNetNormalize, concat_channels, merge_time, split_time, stack_time


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_stack_time_keeps_the_layout(memory_format: torch.memory_format) -> None:
    frames = [torch.rand(2, 4, 5, 6).contiguous(memory_format=memory_format) for _ in range(3)]
    clip = stack_time(frames)
    assert torch.equal(clip, torch.stack(frames, 1))
    merged = merge_time(clip)
    assert merged.is_contiguous(memory_format=memory_format)
    assert merged.data_ptr() == clip.data_ptr()


@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (2, 3, 4, 5, 6)])
def test_merge_and_split_are_inverse(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    assert torch.equal(split_time(merge_time(x), x), x)
    assert torch.equal(concat_channels(x, 2 * x), torch.cat([x, 2 * x], -3))


def test_normalisation_is_out_of_place_and_unnamed() -> None:
    module = ImageNetNormalize()
    x = torch.full((1, 3, 2, 2), 0.5)
    assert module(x)[0, :, 0, 0].tolist() == pytest.approx([0.015 / 0.229, 0.044 / 0.224, 0.094 / 0.225], rel=1e-5)
    assert x.eq(0.5).all()
    assert not module.state_dict()
