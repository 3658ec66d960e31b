"""Whether a quantized network can be trusted on every clip, not on average alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ptq4vm.evaluation.results import EvaluationResult

log = logging.getLogger(__name__)

FACTOR = 1.5
"""How many times the float network's MAD a clip may have before it is warned of."""
_SMALL = 1.0  # of MAD, x1e3: less cannot be seen, whatever the factor


def departures(before: EvaluationResult, after: EvaluationResult, factor: float = FACTOR) -> dict[str, float]:
    """Clips on which a network leaves the float one: how many times its MAD they have, the worst first.

    Args:
        before: The float network, by clip.
        after: The quantized one, on the same clips.
        factor: How many times the float network's MAD is still good.
    """
    found = {}
    for clip, metrics in after.clips.items():
        base = before.clips.get(clip, {}).get("mad")
        mad = metrics.get("mad")
        if base is not None and mad is not None and mad > factor * base and mad - base > _SMALL:
            found[clip] = mad / base if base > 0 else float("inf")
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def warn_of_departures(stages: Mapping[str, EvaluationResult]) -> None:
    """Say, in one line, on which clips the last of a run's stages leaves the first, ``fp32``."""
    if "fp32" not in stages or len(stages) < 2:
        return
    found = departures(stages["fp32"], list(stages.values())[-1])
    if found:
        worst = ", ".join(f"{clip} ({times:.1f} times)" for clip, times in list(found.items())[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        log.warning(
            "the quantized network leaves the float one on %d of %d clips, where its MAD is more than %g times as "
            "large: %s%s; do not trust it on clips like these: give more bits (budget.avg_bits=4.5), or calibrate on "
            "such clips",
            *(len(found), len(stages["fp32"].clips), FACTOR, worst, more),
        )
