from __future__ import annotations

import torch

from ptq4vm.models.rvm.decoder import BottleneckBlock, ConvGRU, RecurrentDecoder


def test_gru_step_is_equation_1() -> None:
    gru = ConvGRU(2)
    x, h = torch.rand(1, 2, 5, 6), torch.rand(1, 2, 5, 6)
    gates = torch.sigmoid(gru.ih[0](torch.cat([x, h], 1)))
    r, z = gates[:, :2], gates[:, 2:]
    candidate = torch.tanh(gru.hh[0](torch.cat([x, r * h], 1)))
    torch.testing.assert_close(gru.step(x, h), (1 - z) * h + z * candidate)


def test_gru_over_a_clip_is_its_steps() -> None:
    gru = ConvGRU(2)
    clip = torch.rand(2, 3, 2, 5, 6)
    outputs, last = gru(clip)
    h = torch.zeros(2, 2, 5, 6)
    for t in range(3):
        h = gru.step(clip[:, t], h)
        torch.testing.assert_close(outputs[:, t], h)
    assert torch.equal(last, outputs[:, -1])


def test_first_half_of_the_channels_goes_straight() -> None:
    clip = torch.rand(1, 2, 8, 5, 6)
    y, state = BottleneckBlock(8)(clip, None)
    assert torch.equal(y[:, :, :4], clip[:, :, :4])
    assert torch.equal(y[:, -1, 4:], state)


def test_pooled_images_of_odd_size_average_what_is_there() -> None:
    decoder = RecurrentDecoder((2, 2, 2, 4), (4, 4, 4, 4))
    image = torch.arange(15.0).view(1, 1, 1, 3, 5).expand(1, 2, 3, 3, 5)
    levels = decoder._pyramid(image)
    assert [tuple(level.shape[-2:]) for level in levels] == [(3, 5), (2, 3), (1, 2), (1, 1)]
    assert levels[1][0, 0, 0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]
