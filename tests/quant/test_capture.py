from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import TINY_PARTITION, disc_clips, tiny_folded
from ptq4vm.errors import ConfigError
from ptq4vm.ops.tree import tree_leaves, tree_map
from ptq4vm.quant.capture import BlockCall, BlockSamples, BlockStream, TensorStore

BLOCKS = TINY_PARTITION.blocks


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def _runs(network: nn.Module, frames: Tensor, chunk: int = 2) -> list[Callable[[], Any]]:
    return [lambda part=part: network(part) for part in frames.split(chunk)]  # type: ignore[misc]


def _hooked(network: nn.Module, frames: Tensor) -> dict[str, BlockCall]:
    """Inputs and outputs of every block in one plain forward over all clips."""
    seen: dict[str, BlockCall] = {}
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda m, args, kwargs, out, path=path: seen.update({path: BlockCall(args, kwargs, out)}), with_kwargs=True
        )
        for path in BLOCKS
    ]
    with torch.no_grad():
        network(frames)
    for handle in handles:
        handle.remove()
    return seen


def _joined(calls: list[BlockCall], part: str) -> list[Tensor]:
    return tree_leaves(tree_map(lambda *leaves: torch.cat(leaves), *[getattr(call, part) for call in calls]))


def _assert_equal(ours: list[Tensor], expected: list[Tensor]) -> None:
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("budget", [64, 0])
def test_calls_equal_those_of_a_plain_forward(when: str, budget: float) -> None:
    network, frames = tiny_folded(), disc_clips(5).frames
    expected = _hooked(network, frames)
    store = TensorStore(budget)
    stream = BlockStream(network, BLOCKS, _runs(network, frames), when, store)
    for path in BLOCKS:
        calls = stream.advance()
        assert len(calls) == 3
        _assert_equal(_joined(calls, "args"), tree_leaves(expected[path].args))
        if when == "after":
            _assert_equal(_joined(calls, "output"), tree_leaves(expected[path].output))
        else:
            assert all(call.output is None for call in calls)
    stream.close()
    assert (store.files > 0) == (budget == 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_block_changed_while_the_stream_waits_is_what_later_blocks_see() -> None:
    network, frames = tiny_folded(), disc_clips().frames
    changed = copy.deepcopy(network)
    for part in (changed.stem, changed.body):
        for parameter in part.parameters():
            parameter.mul_(1.5)
    expected = _hooked(changed, frames)
    stream = BlockStream(network, BLOCKS, _runs(network, frames), "before", TensorStore(64))
    for path in ("stem", "body"):
        stream.advance()
        block = network.get_submodule(path)
        for parameter in block.parameters():
            parameter.mul_(1.5)
        block(torch.rand(1, 3 if path == "stem" else 8, 8, 8))  # training calls are none of the stream's business
    _assert_equal(_joined(stream.advance(), "args"), tree_leaves(expected["recur"].args))
    stream.close()


def test_blocks_run_once_and_the_stream_holds_one_block_at_a_time() -> None:
    network, frames = tiny_folded(), disc_clips().frames
    counts = dict.fromkeys(BLOCKS, 0)
    for path in BLOCKS:
        network.get_submodule(path).register_forward_hook(
            lambda m, a, out, path=path: counts.update({path: counts[path] + 1})
        )
    stream = BlockStream(network, BLOCKS, _runs(network, frames), "before", TensorStore(64))
    for index in range(len(BLOCKS)):
        stream.advance()
        assert [counts[path] for path in BLOCKS] == [2] * index + [0] * (len(BLOCKS) - index)
    stream.close()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (("body", "stem"), "expected 'body' next but the network reached block 'stem'"),
        (("stem", "project", "body"), "expected 'project' next but the network reached block 'body'"),
    ],
)
def test_wrong_order_is_named(blocks: tuple[str, ...], message: str) -> None:
    network, frames = tiny_folded(), disc_clips().frames
    stream = BlockStream(network, blocks, _runs(network, frames), "before", TensorStore(64))
    with pytest.raises(ConfigError, match=message):
        for _ in blocks:
            stream.advance()
    stream.close()


def test_a_block_called_twice_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    stream = BlockStream(
        network, ["0", "1"], [lambda: network(network[0](torch.rand(1, 3, 2, 2)))], "after", TensorStore(1)
    )
    stream.advance()
    with pytest.raises(ConfigError, match="expected '1' next but the network reached block '0'"):
        stream.advance()
    stream.close()


def test_the_end_of_the_forward_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    stream = BlockStream(network, ["0", "1"], [lambda: network[0](torch.rand(1, 3, 2, 2))], "after", TensorStore(1))
    stream.advance()
    with pytest.raises(ConfigError, match="reached the end of the forward"):
        stream.advance()
    stream.close()


def test_errors_inside_the_network_surface() -> None:
    network, frames = tiny_folded(), disc_clips().frames

    def broken(module: nn.Module, args: Any) -> None:
        raise ArithmeticError("inside")

    network.body[2].register_forward_pre_hook(broken)
    stream = BlockStream(network, BLOCKS, _runs(network, frames), "before", TensorStore(64))
    stream.advance()
    stream.advance()
    with pytest.raises(ArithmeticError, match="inside"):
        stream.advance()
    stream.close()


@pytest.mark.parametrize("advances", [0, 1, len(BLOCKS)])
def test_closing_early_ends_every_thread(advances: int) -> None:
    network, frames = tiny_folded(), disc_clips(6).frames
    stream = BlockStream(network, BLOCKS, _runs(network, frames), "after", TensorStore(64))
    for _ in range(advances):
        stream.advance()
    assert threading.active_count() > 3
    stream.close()
    stream.close()  # a second time does nothing


def test_gradients_are_off_inside_and_stay_on_outside() -> None:
    network, frames = tiny_folded().requires_grad_(True), disc_clips().frames
    stream = BlockStream(network, BLOCKS, _runs(network, frames), "after", TensorStore(64))
    assert not any(leaf.requires_grad for call in stream.advance() for leaf in tree_leaves(call.output))
    assert torch.is_grad_enabled()
    stream.close()


def test_store_spills_beyond_its_budget_and_frees_both(tmp_path: Path) -> None:
    store = TensorStore(1.0, tmp_path)
    tensors = [torch.rand(3, 64, 1024) for _ in range(3)]  # 0.75 MiB each
    kept = [store.keep(tensor.clone()) for tensor in tensors]
    assert store.files == 2
    assert all(torch.equal(a, b) for a, b in zip(kept, tensors, strict=True))
    assert not list(tmp_path.rglob("*.bin"))  # the space goes with the mapping
    del kept
    gc.collect()
    again = store.keep(tensors[0].clone())  # the budget is free again
    assert store.files == 2 and torch.equal(again, tensors[0])
    del store, again
    gc.collect()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool])
def test_spilled_tensors_keep_values_dtype_and_layout(dtype: torch.dtype) -> None:
    store = TensorStore(0)
    tensor = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last).to(dtype)
    kept = store.keep(tensor)
    assert store.files == 1 and kept.dtype == dtype and torch.equal(kept, tensor)
    assert kept.stride() == tensor.stride()
    part = torch.rand(4, 6)[:, ::2]
    assert torch.equal(store.keep(part), part)
    assert store.keep(torch.empty(0, 3)).shape == (0, 3)


def _samples() -> tuple[BlockSamples, list[BlockCall], list[BlockCall]]:
    """Chunks of 2 and 3 rows with a keyword, a missing state, and a pair of outputs."""

    def calls(offset: float) -> list[BlockCall]:
        rows = [torch.arange(2.0).view(2, 1), torch.arange(2.0, 5.0).view(3, 1)]
        return [BlockCall((r + offset, None), {"k": -r - offset}, (r * 10, r * 100)) for r in rows]

    quantized, teacher = calls(0.5), calls(0)
    return BlockSamples(quantized, teacher), quantized, teacher


def test_samples_gather_rows_across_chunks() -> None:
    samples, _, _ = _samples()
    assert len(samples) == 5
    ((x, state), kwargs), ((fx, _), fkwargs), (first, second), weights = samples.__getitems__([4, 0, 2])
    assert weights is None
    rows = fx.flatten().tolist()
    assert sorted(rows) == [0, 2, 4] and state is None
    assert x.flatten().tolist() == [r + 0.5 for r in rows]
    assert kwargs["k"].flatten().tolist() == [-r - 0.5 for r in rows]
    assert fkwargs["k"].flatten().tolist() == [-r for r in rows]
    assert first.flatten().tolist() == [r * 10 for r in rows] and second.flatten().tolist() == [r * 100 for r in rows]


def test_one_sample_keeps_its_leading_dimension() -> None:
    (args, _), _, target, _ = _samples()[0][3]
    assert args[0].tolist() == [[3.5]] and target[0].tolist() == [[30.0]]
