"""Every metric as a torchmetric: streams, resets, and sums over processes."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from test_functional import FUNCTIONS, smooth_clip

from ptq4vm.errors import DataError
from ptq4vm.metrics import DTSSD, MAD, METRIC_NAMES, MSE, SAD, ConnectivityError, GradientError, MattingMetrics
from ptq4vm.metrics.functional import sum_absolute_difference

CLASSES = {"mad": MAD, "mse": MSE, "grad": GradientError, "conn": ConnectivityError, "dtssd": DTSSD, "sad": SAD}
FUNCTION_OF = FUNCTIONS | {"sad": sum_absolute_difference}


@pytest.fixture(scope="module")
def clip() -> tuple[torch.Tensor, torch.Tensor]:
    return smooth_clip(1, frames=7).float() / 255, smooth_clip(2, frames=7)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("chunk", [1, 3, 7])
@pytest.mark.parametrize("call", ["update", "forward"])
def test_chunks_of_a_clip_equal_the_function(clip, name, chunk, call):
    metric = CLASSES[name]()
    for pred, true in zip(clip[0].split(chunk), clip[1].split(chunk), strict=True):
        getattr(metric, call)(pred, true)
    torch.testing.assert_close(metric.compute(), FUNCTION_OF[name](*clip))


@pytest.mark.parametrize("name", CLASSES)
def test_forward_returns_the_chunk_alone(clip, name):
    metric = CLASSES[name]()
    per_frame = FUNCTION_OF[name](*clip, reduction="none")
    torch.testing.assert_close(metric(clip[0][:4], clip[1][:4]), per_frame[:4].mean())
    torch.testing.assert_close(metric(clip[0][4:], clip[1][4:]), per_frame[4:].mean())


@pytest.mark.parametrize("name", CLASSES)
def test_reset_forgets_everything(clip, name):
    metric = CLASSES[name]()
    metric.update(1 - clip[0], clip[1])
    metric.reset()
    metric.update(*clip)
    torch.testing.assert_close(metric.compute(), FUNCTION_OF[name](*clip))


@pytest.mark.parametrize("name", CLASSES)
def test_processes_add_up(clip, name):
    mine, theirs, both = CLASSES[name](), CLASSES[name](), CLASSES[name]()
    other = (1 - clip[0][:2], clip[1][:2])
    mine.update(*clip)
    theirs.update(*other)
    both.update(*clip)
    if name == "dtssd":
        both.start_clip()
    both.update(*other)
    gathered = iter([theirs.total, theirs.frames])
    mine.sync(dist_sync_fn=lambda state, group: [state, next(gathered)], distributed_available=lambda: True)
    assert mine.frames == 9
    torch.testing.assert_close(mine.total / mine.frames, both.compute())


def test_dtssd_continues_until_told_that_another_clip_starts(clip):
    metric = DTSSD()
    metric.update(*clip)
    metric.start_clip()
    metric.update(torch.zeros(2, 1, 5, 5), torch.zeros(2, 1, 5, 5))  # another size is fine in another clip
    torch.testing.assert_close(metric.compute(), FUNCTIONS["dtssd"](*clip) * 7 / 9)
    with pytest.raises(DataError, match="reset at the start of a clip"):
        metric.update(*clip)


def test_a_refused_chunk_leaves_the_state_alone(clip):
    metric = DTSSD()
    metric.update(clip[0][:4], clip[1][:4])
    with pytest.raises(DataError):
        metric.update(clip[0][4:] * 300, clip[1][4:])
    metric.update(clip[0][4:], clip[1][4:])
    torch.testing.assert_close(metric.compute(), FUNCTIONS["dtssd"](*clip))


@pytest.mark.parametrize("copy", [deepcopy, MattingMetrics.clone])
def test_copies_go_on_where_the_original_was(clip, copy):
    metric = MattingMetrics()
    metric.update(clip[0][:4], clip[1][:4])
    twin = copy(metric)
    twin.update(clip[0][4:], clip[1][4:])
    for name, value in twin.compute().items():
        torch.testing.assert_close(value, FUNCTIONS[name](*clip))


def test_collection_keeps_metrics_apart_after_a_perfect_first_chunk(clip):
    metrics = MattingMetrics()
    metrics.update(clip[1][:3], clip[1][:3])  # every state is equal here: compute groups would merge them
    metrics.update(clip[0][3:], clip[1][3:])
    pred = torch.cat([clip[1][:3].float() / 255, clip[0][3:]])
    result = metrics.compute()
    assert set(result) == set(METRIC_NAMES)
    for name, value in result.items():
        torch.testing.assert_close(value, FUNCTIONS[name](pred, clip[1]))
    metrics.start_clip()
    metrics.update(clip[0][:1, :, :5, :5], clip[1][:1, :, :5, :5])
