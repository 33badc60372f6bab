"""Means with intervals, and ranks that are shared where the difference is not significant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Half-width of Student's interval of the mean; NaN for fewer than two values.

    The percentile bootstrap covers only three quarters where it promises 95 % at n = 3, so it is not used here.
    """
    n = len(values)
    if n < 2:
        return math.nan
    deviation = float(np.std(values, ddof=1))
    return float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * deviation / math.sqrt(n)


def differs(first: Mapping[int, float], second: Mapping[int, float], alpha: float = 1 - CONFIDENCE) -> bool:
    """Whether two methods' values by seed differ: paired t-test over shared seeds, Welch's test when fewer than two are
    shared. With a single value each there is nothing to test: they differ when the numbers do."""
    shared = sorted(first.keys() & second.keys())
    a, b = np.array([first[s] for s in shared]), np.array([second[s] for s in shared])
    if len(shared) >= 2:
        difference = a - b
        if np.ptp(difference) < 1e-12:
            return bool(abs(difference[0]) > 1e-12)
        return bool(stats.ttest_rel(a, b).pvalue < alpha)
    if len(first) >= 2 and len(second) >= 2:
        return bool(stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False).pvalue < alpha)
    return float(np.mean(list(first.values()))) != float(np.mean(list(second.values())))


def shared_ranks(values: Mapping[str, Mapping[int, float]], direction: str) -> dict[str, int]:
    """Competition ranks by mean; a method shares the rank of the best one above it that it does not differ from."""
    sign = -1.0 if direction == "up" else 1.0
    order = sorted(values, key=lambda name: (sign * float(np.mean(list(values[name].values()))), name))
    ranks: dict[str, int] = {}
    leader = ""
    for position, name in enumerate(order, start=1):
        if leader and not differs(values[leader], values[name]):
            ranks[name] = ranks[leader]
        else:
            ranks[name], leader = position, name
    return ranks
