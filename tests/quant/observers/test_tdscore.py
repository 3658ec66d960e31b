"""TDScore by its definition, and the search by K: what it finds is the best of what it may choose."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ptq4vm.errors import ConfigError, DataError
from ptq4vm.quant.observers.tdscore import RELAXATIONS, TDScoreObserver, TemporalJoint, td_loss, td_score
from ptq4vm.quant.quantizers.base import SiteRanges
from ptq4vm.quant.registries import OBSERVERS, QUANTIZERS
from ptq4vm.quant.spec import ActivationSpec


def _clip(frames: int = 6, skew: float = 6.0, seed: int = 0) -> Tensor:
    """A skewed tensor whose frames differ a little, ``(T, 4, 12, 12)``."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.empty(1, 4, 12, 12).exponential_(skew, generator=generator)
    drift = torch.empty(frames, 4, 12, 12).exponential_(skew, generator=generator)
    return (0.8 * base + 0.2 * drift).clamp(max=3.0)


def test_score_is_the_mean_similarity_to_both_neighbours() -> None:
    rows = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))

    def alike(a: int, b: int) -> Tensor:
        return F.cosine_similarity(rows[a], rows[b], dim=0)

    wanted = [alike(0, 1), (alike(0, 1) + alike(1, 2)) / 2, (alike(1, 2) + alike(2, 3)) / 2, alike(2, 3)]
    torch.testing.assert_close(td_score(rows), torch.stack(wanted))


def test_equal_frames_score_one_whatever_their_scale() -> None:
    row = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(td_score(torch.cat([row, 3 * row, row])), torch.ones(3))


def test_loss_is_the_mean_change_of_the_score_within_each_run() -> None:
    before = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[0, 2] = -after[0, 2]
    change = (td_score(before[0]) - td_score(after[0])).abs().sum() / 6  # the second run has not changed
    assert td_loss(before, after) == pytest.approx(float(change))
    assert td_loss(before, before * 5) < 1e-6
    assert td_loss(before[:, :1], after[:, :1]) == 0.0


@pytest.mark.parametrize("groups", [1, 4])
def test_a_skewed_tensor_gets_a_bent_grid_and_a_flat_one_an_even_grid(groups: int) -> None:
    spec = ActivationSpec(bits=4, quantizer="htdq", observer="tdscore", temporal_weight=0.0)
    flat = torch.rand(6, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    found = []
    for clip in (_clip(), flat):
        joint = TemporalJoint(spec, groups, 0, relative=False, per_frame=256, limit=1024)
        joint.observe(clip.split(4 // groups, dim=1))
        ranges = joint.ranges()
        assert len({r[2] for r in ranges}) == 1
        found.append(ranges[0][2])
    assert found[0] in RELAXATIONS
    assert found[1] > found[0]


def _metric(clip: Tensor, spec: ActivationSpec, ranges: list[tuple[float, ...]], sizes: tuple[int, ...]) -> float:
    """K of a whole clip, by the quantizer itself."""
    quantizer = QUANTIZERS[spec.quantizer].from_ranges(spec, SiteRanges(ranges, sizes))
    with torch.no_grad():
        after = quantizer(clip)
    error = float((after - clip).square().sum() / clip.square().sum())
    runs = (frames.flatten(1).unflatten(0, (-1, 3)) for frames in (clip, after))
    return error + spec.temporal_weight * td_loss(*runs)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(), (1, 1, 1, 1)])
def test_nothing_else_among_the_candidates_is_clearly_better(weight: float, sizes: tuple[int, ...]) -> None:
    spec = ActivationSpec(bits=3, quantizer="htdq", observer="tdscore", temporal_weight=weight)
    clip = _clip()
    joint = TemporalJoint(spec, max(1, len(sizes)), 0, relative=False, per_frame=576, limit=4096)
    joint.observe(clip.split(1, dim=1) if sizes else [clip])
    found = joint.ranges()
    best = _metric(clip, spec, found, sizes)
    for relaxation in (math.inf, *RELAXATIONS):
        for factor in (0.6, 0.8, 1.0, 1.25, 1.6):
            other = [(low * factor, high * factor, relaxation) for low, high, _ in found]
            assert best <= 1.25 * _metric(clip, spec, other, sizes)


def test_the_metric_weighs_what_tells_frames_apart() -> None:
    # large values that never change hide small ones that do: by error alone the small ones are given up
    clip = torch.zeros(6, 1, 24, 24)
    clip[:, :, :4] = 4.0
    clip[:, :, 4:] = 0.12 * torch.rand(6, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    losses = []
    for weight in (0.0, 100.0):
        spec = ActivationSpec(bits=2, quantizer="htdq", observer="tdscore", temporal_weight=weight)
        joint = TemporalJoint(spec, 1, 0, relative=False, per_frame=576, limit=4096)
        joint.observe([clip])
        quantizer = QUANTIZERS["htdq"].from_ranges(spec, SiteRanges(joint.ranges()))
        losses.append(td_loss(clip.flatten(1), quantizer(clip).detach().flatten(1)))
    assert losses[1] <= losses[0]


def test_ranges_go_with_the_uniform_quantizer_too() -> None:
    observer = OBSERVERS["tdscore"].from_spec(ActivationSpec(bits=4, observer="tdscore"), 0)
    observer.observe(_clip())
    low, high = observer.range()
    assert low <= 0 < high


def test_a_clip_may_come_frame_by_frame() -> None:
    spec = ActivationSpec(bits=4, quantizer="htdq", observer="tdscore")
    whole, single = TDScoreObserver(spec), TDScoreObserver(spec)
    whole.observe(_clip()[None])
    for frame in _clip():
        single.observe(frame[None])
    assert whole.range() == single.range()


def test_unobserved_is_said() -> None:
    with pytest.raises(DataError, match="never observed"):
        TDScoreObserver(ActivationSpec(quantizer="htdq")).range()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="temporal_weight"):
        ActivationSpec(temporal_weight=-1.0)
