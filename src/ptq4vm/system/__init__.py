"""What the machine needs: memory, threads, processes, optional packages, the CPU. No maths, and nothing of ours
but errors and files. Whoever needs a package that may be missing asks :mod:`ptq4vm.system.extras` for it."""
