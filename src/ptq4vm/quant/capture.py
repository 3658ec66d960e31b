"""Follow a network's forward block by block: every forward is suspended at a block and resumed later.

Block reconstruction needs the inputs of block k once blocks 1..k-1 are quantized. Recomputing them from the image
costs a whole prefix for each block. Here each chunk of calibration clips has one forward pass that runs in a thread
of its own and sleeps at a block's border until that block is trained, so that every block of the network is computed
once, whatever the network's code between blocks does. Only one thread runs at a time.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ptq4vm.errors import ConfigError
from ptq4vm.ops.tree import tree_leaves, tree_map


class BlockCall(NamedTuple):
    """One call of a block: positional and keyword arguments, and what it returned (``None`` before it ran)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class TensorStore:
    """Keeps tensors in memory up to a budget, and in memory-mapped files beyond it.

    Args:
        budget_mib: Mebibytes that kept tensors may take in memory.
        folder: Where files go; a temporary folder that is removed with the store when ``None``.
    """

    def __init__(self, budget_mib: float, folder: Path | None = None) -> None:
        self._budget = int(budget_mib * 2**20)
        self._used = 0
        self._files = 0
        self._folder = tempfile.TemporaryDirectory(prefix="ptq4vm-", dir=folder)

    @property
    def files(self) -> int:
        """How many tensors went to disk."""
        return self._files

    def keep(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the same values that stays in memory, or is backed by a file when over the budget."""
        size = tensor.numel() * tensor.element_size()
        if self._used + size <= self._budget or size == 0 or tensor.device.type != "cpu":
            self._used += size
            weakref.finalize(tensor, self._release, size)
            return tensor
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.bin"
        stored = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype)
        path.unlink()  # the mapping keeps the data; the disk space goes with the tensor
        strides = tensor.stride()
        order = sorted(range(tensor.ndim), key=lambda d: -strides[d])
        dense = stored.view([tensor.shape[d] for d in order]).permute([order.index(d) for d in range(tensor.ndim)])
        return dense.copy_(tensor)

    def _release(self, size: int) -> None:
        self._used -= size


class _Stopped(BaseException):
    """Ends a suspended forward that is no longer needed; not an Exception, so that no network code catches it."""


class _SuspendedForward:
    """One forward pass in a thread that sleeps at block borders."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._resume = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._stop = False
        self.at: tuple[str, BlockCall] | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.thread.start()

    def _main(self) -> None:
        self._resume.acquire()
        try:
            if not self._stop:
                with torch.no_grad():
                    self._run()
        except _Stopped:
            pass
        except BaseException as error:  # handed to the thread that waits, which raises it
            self.error = error
        self.at = None
        self._paused.release()

    def pause(self, path: str, call: BlockCall) -> None:
        """Called by hooks inside the forward: report where we are and sleep."""
        self.at = (path, call)
        self._paused.release()
        self._resume.acquire()
        if self._stop:
            raise _Stopped

    def advance(self) -> tuple[str, BlockCall] | None:
        """Run to the next border; ``None`` when the forward has ended. Raises what the forward raised."""
        self._resume.release()
        self._paused.acquire()
        if self.error is not None:
            raise self.error
        return self.at

    def close(self) -> None:
        """End the forward where it is."""
        if self.thread.is_alive():
            self._stop = True
            self._resume.release()
            self.thread.join()


class BlockStream:
    """Runs a network over chunks of clips and hands out one block's calls after the other.

    Args:
        network: The network whose blocks are followed.
        blocks: Module paths in topological order, each called once per forward.
        runs: One callable per chunk; each makes one forward of ``network``.
        when: ``before`` stops with a block's inputs, before it runs (the block may be changed meanwhile);
            ``after`` stops once it has run, with inputs and output.
        store: Decides where block outputs are kept.
    """

    def __init__(
        self,
        network: nn.Module,
        blocks: Sequence[str],
        runs: Sequence[Callable[[], Any]],
        when: str,
        store: TensorStore,
    ) -> None:
        self._blocks = list(blocks)
        self._next = 0
        self._inputs: dict[threading.Thread, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._store = store
        self._when = when
        self._forwards = [_SuspendedForward(run) for run in runs]
        self._by_thread = {forward.thread: forward for forward in self._forwards}
        self._hooks = ExitStack()
        add = self._hooks.enter_context
        for path in self._blocks:
            block = network.get_submodule(path)
            add(block.register_forward_pre_hook(lambda m, a, k, path=path: self._before(path, a, k), with_kwargs=True))
            add(block.register_forward_hook(lambda m, a, out, path=path: self._after(path, out)))

    def _before(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        forward = self._by_thread.get(threading.current_thread())
        if forward is None:  # the block is being trained, not followed
            return
        self._inputs[forward.thread] = (args, kwargs)
        if self._when == "before":
            forward.pause(path, BlockCall(args, kwargs, None))

    def _after(self, path: str, output: Any) -> Any:
        forward = self._by_thread.get(threading.current_thread())
        if forward is None:
            return None
        kept = tree_map(self._store.keep, output)
        args, kwargs = self._inputs.pop(forward.thread)
        if self._when == "after":
            forward.pause(path, BlockCall(args, kwargs, kept))
        return kept

    def advance(self) -> list[BlockCall]:
        """Go to the next block in every chunk and return its calls.

        Raises:
            ConfigError: The network calls its blocks in another order than declared, or one more than once.
        """
        expected = self._blocks[self._next]
        calls = []
        for forward in self._forwards:
            reached = forward.advance()
            if reached is None or reached[0] != expected:
                found = "the end of the forward" if reached is None else f"block {reached[0]!r}"
                raise ConfigError(f"blocks: expected {expected!r} next but the network reached {found}; fix the order")
            calls.append(reached[1])
        self._next += 1
        return calls

    def close(self) -> None:
        """End every forward and take the hooks off the network."""
        for forward in self._forwards:
            forward.close()
        self._hooks.close()
        self._forwards.clear()


def clips_in_chunk(frames: Tensor, chunk_frames: int) -> int:
    """How many of the clips ``(N, T, 3, H, W)`` make a chunk of about ``chunk_frames`` frames, at least one."""
    return max(1, chunk_frames // frames.shape[1])


def follow_both(
    teacher: nn.Module,
    quantized: nn.Module,
    blocks: Sequence[str],
    chunks: Sequence[Tensor],
    device: torch.device,
    store: TensorStore,
) -> tuple[BlockStream, BlockStream]:
    """Follow the float network past every block, and the quantized one up to every block, over the same chunks.

    Args:
        teacher: Folded float network.
        quantized: Quantized copy of the teacher, whose blocks are changed on the way.
        blocks: Module paths in topological order.
        chunks: Clips of each forward, ``(n, T, 3, H, W)``.
        device: Where the networks are.
        store: Decides where block outputs are kept.

    Returns:
        The stream of the float network, and that of the quantized one.
    """

    def runs(network: nn.Module) -> list[Callable[[], Any]]:
        return [lambda chunk=chunk: network(chunk.to(device)) for chunk in chunks]  # type: ignore[misc]

    return (
        BlockStream(teacher, blocks, runs(teacher), "after", store),
        BlockStream(quantized, blocks, runs(quantized), "before", store),
    )


class BlockSamples(Dataset[tuple[Any, Any, Any, Any]]):
    """Inputs and targets of one block over all chunks, addressed by row of the leading dimension.

    Args:
        quantized: Calls of the block in the network whose earlier blocks are quantized.
        teacher: Calls of the float block, with outputs.
        weights: For each call, a tree of the form of its output; none where errors are not weighted.
    """

    def __init__(
        self, quantized: Sequence[BlockCall], teacher: Sequence[BlockCall], weights: Sequence[Any] = ()
    ) -> None:
        self._quantized = quantized
        self._teacher = teacher
        self._weights = weights
        self._sizes = [len(tree_leaves(call.args or call.kwargs)[0]) for call in teacher]

    def __len__(self) -> int:
        return sum(self._sizes)

    @property
    def positions(self) -> int:
        """Pixels of the block's largest output, over all frames of one row."""
        outputs = tree_leaves(self._teacher[0].output)
        return max(leaf[0].numel() // leaf.shape[-3] for leaf in outputs)

    def __getitem__(self, row: int) -> tuple[Any, Any, Any, Any]:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> tuple[Any, Any, Any, Any]:
        """Rows gathered from all chunks: ``(quantized inputs, float inputs, float outputs, weights or None)``.

        Inputs are ``(args, kwargs)``.
        """
        starts = [0]
        for size in self._sizes:
            starts.append(starts[-1] + size)
        picked: dict[int, list[int]] = {}
        for row in rows:
            chunk = next(c for c, size in enumerate(self._sizes) if row < starts[c] + size)
            picked.setdefault(chunk, []).append(row - starts[chunk])

        def gather(trees: Sequence[Any]) -> Any:
            return tree_map(
                lambda *leaves: torch.cat([leaf[picked[c]] for c, leaf in enumerate(leaves) if c in picked]), *trees
            )

        return (
            gather([(call.args, call.kwargs) for call in self._quantized]),
            gather([(call.args, call.kwargs) for call in self._teacher]),
            gather([call.output for call in self._teacher]),
            gather(self._weights) if self._weights else None,
        )


@torch.no_grad()
def layer_calls(block: nn.Module, layer: str, calls: Sequence[BlockCall]) -> list[BlockCall]:
    """Run a block on its calls again and return the calls of one layer inside.

    A layer that a recurrent block calls once per frame gets these joined along the leading dimension.

    Args:
        block: The block, in eval mode.
        layer: Path inside the block; it takes one tensor and gives one.
        calls: Calls of the block, with the arguments to run it on.

    Returns:
        One call for each of ``calls``, with its output.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    found = []
    with block.get_submodule(layer).register_forward_hook(lambda m, args, out: seen.append((args[0], out))):
        for call in calls:
            seen.clear()
            block(*call.args, **call.kwargs)
            inputs, outputs = (torch.cat(parts) for parts in zip(*seen, strict=True))
            found.append(BlockCall((inputs,), {}, outputs))
    return found
