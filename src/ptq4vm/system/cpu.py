"""What this machine's CPU can do with integers."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

VNNI = ("avx512_vnni", "avx_vnni")
"""Instructions that add products of 8 bits in 32; x86 CPUs without them add two products in 16 bits and cut off."""
_NAMED = ("avx2", "avx512bw", *VNNI, "amx_int8")
_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")
"""Values of ``ONEDNN_MAX_CPU_ISA`` that keep oneDNN, and so OpenVINO, from using VNNI."""


@dataclass(frozen=True)
class Cpu:
    """A CPU as an engine sees it.

    Attributes:
        features: Instruction sets that matter for integers, by Linux's names (``avx2``, ``avx512_vnni``, ...); empty
            where they cannot be told.
        exact: Whether sums of products of 8 bits cannot be cut off at 16 bits.
    """

    features: tuple[str, ...]
    exact: bool

    def __str__(self) -> str:
        """``CPU with avx2, without VNNI``."""
        names = ", ".join(self.features) or f"unknown features ({platform.machine()})"
        return f"CPU with {names}{'' if self.exact else ', without VNNI'}"


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_cpu(onednn: bool = False) -> Cpu:
    """The CPU that this process runs on.

    Args:
        onednn: Whether to describe the CPU as oneDNN uses it, which ``ONEDNN_MAX_CPU_ISA`` may keep from what there is.
    """
    features = _features(Path("/proc/cpuinfo"))
    if onednn and os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_VNNI:
        features = tuple(name for name in features if name not in VNNI and name != "amx_int8")
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    return Cpu(features, not x86 or bool(set(VNNI) & set(features)))


def _features(file: Path) -> tuple[str, ...]:
    """The names of :data:`_NAMED` in Linux's list of flags; none elsewhere."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return tuple(name for name in _NAMED if name in flags)
