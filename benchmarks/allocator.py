"""How much faster training steps are when malloc keeps freed memory: run with ``python benchmarks/allocator.py``.

Each measurement is a process of its own (malloc cannot be set back), in alternation; the ratio is what counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS, STEPS = 3, 4


def measure(keep: bool) -> float:
    """Median seconds of a forward and backward pass of the float network over 2 clips of 4 frames of 256x256."""
    import torch

    from ptq4vm.models.rvm.network import RVM
    from ptq4vm.system.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    network = RVM("mobilenetv3").eval().to(memory_format=torch.channels_last)
    clips = torch.rand(2, 4, 3, 256, 256)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        network.matte(clips).alpha.mean().backward()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    """Print both medians and their ratio."""
    if len(sys.argv) > 1:
        print(measure(sys.argv[1] == "keep"))
        return
    found: dict[str, list[float]] = {"default": [], "keep": []}
    for _ in range(ROUNDS):
        for name, values in found.items():
            done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
            values.append(float(done.stdout))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, values in found.items():
        print(f"{name:8s} {medians[name]:.3f} s a step ({min(values):.3f} to {max(values):.3f})")
    print(f"ratio    {medians['default'] / medians['keep']:.2f}")


if __name__ == "__main__":
    main()
