"""Schedules as functions of the share of the budget that is used, so that they fit budgets of steps and of seconds."""

from __future__ import annotations

import math


def warmup_cosine(progress: float, warmup: float = 0.0) -> float:
    """A factor in [0, 1]: rises linearly until ``progress`` reaches ``warmup``, then falls along a half cosine to 0.

    It starts at 0.01 rather than 0, at which a first step would change nothing.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    done = (progress - warmup) / max(1.0 - warmup, 1e-9)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
