"""Is B less accurate than A? Paired differences, Student's intervals, and a margin that says what counts; pure functions.

The differences are head minus base, turned so that positive is better, one for each seed; each is itself paired by item, since
both sides are scored on the same items. With the metric's margin M and one-sided t-intervals at 95 %:

    pass           lower end > -M                          not worse by M: non-inferiority is shown
    worse          upper end < 0 and mean < -M / 2         a drop is shown, and it is of a size that counts
    inconclusive   anything else, and fewer than five seeds

t-intervals, because the percentile bootstrap covers 76 % for 95 % at three seeds and 85 % at five. Equal records need no test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Outcome = Literal["pass", "worse", "inconclusive"]
MIN_SEEDS = 5
CONFIDENCE = 0.95  # one-sided


@dataclass(frozen=True)
class AccuracyVerdict:
    outcome: Outcome
    reason: str
    base: float  # mean over the shared seeds
    head: float
    change: float  # mean of the paired differences, in the metric's unit; positive is better
    low: float  # one-sided lower and upper ends
    high: float
    margin: float
    seeds: int
    items_better: int | None = None  # of the shared items, by their mean over seeds; None where there are no items
    items_worse: int | None = None
    item_low: float = math.nan  # the same one-sided ends over items, for the reader
    item_high: float = math.nan


def one_sided_ends(
    differences: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Lower and upper end of the mean, each one-sided at ``confidence``. Raises ValueError for fewer than two values."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"{len(values)} values: an interval needs at least two")
    half = float(stats.t.ppf(confidence, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return mean - half, mean + half


def judge(
    base: Mapping[int, float],
    head: Mapping[int, float],
    direction: str,
    margin: float,
    base_items: Mapping[int, NDArray[np.float64]] | None = None,
    head_items: Mapping[int, NDArray[np.float64]] | None = None,
) -> AccuracyVerdict:
    """Values by seed (and, where they exist, per-item values by seed) of one metric of one cell."""
    sign = 1.0 if direction == "up" else -1.0
    shared = sorted(base.keys() & head.keys())
    differences = sign * np.array([head[seed] - base[seed] for seed in shared])
    before, after = (float(np.mean([side[seed] for seed in shared])) if shared else math.nan for side in (base, head))
    items = _items(shared, sign, base_items or {}, head_items or {})
    if len(shared) < MIN_SEEDS:
        reason = f"{len(shared)} shared seeds; {MIN_SEEDS} are needed"
        change = float(differences.mean()) if shared else math.nan
        return AccuracyVerdict(
            "inconclusive", reason, before, after, change, math.nan, math.nan, margin, len(shared), **items
        )
    low, high = one_sided_ends(differences)
    change = float(differences.mean())
    outcome: Outcome
    if low > -margin:
        outcome, reason = "pass", f"not worse by {margin:g}"
    elif high < 0 and change < -margin / 2:
        outcome, reason = "worse", f"worse by {-change:.4g}, and {margin:g} is the margin"
    else:
        outcome, reason = (
            "inconclusive",
            f"between {low:+.4g} and {high:+.4g} for a margin of {margin:g}; use more seeds",
        )
    return AccuracyVerdict(outcome, reason, before, after, change, low, high, margin, len(shared), **items)


def _items(
    shared: Sequence[int],
    sign: float,
    base: Mapping[int, NDArray[np.float64]],
    head: Mapping[int, NDArray[np.float64]],
) -> dict[str, Any]:
    """How many items became better and worse, and the interval over items of their mean difference over seeds."""
    seeds = [seed for seed in shared if seed in base and seed in head]
    if not seeds or any(base[seed].ndim != 1 or base[seed].shape != head[seed].shape for seed in seeds):
        return {}
    lengths = {len(base[seed]) for seed in seeds}
    if len(lengths) != 1:
        return {}
    differences = sign * np.mean([head[seed] - base[seed] for seed in seeds], axis=0)
    low, high = one_sided_ends(differences) if len(differences) > 1 else (math.nan, math.nan)
    return {
        "items_better": int((differences > 0).sum()),
        "items_worse": int((differences < 0).sum()),
        "item_low": low,
        "item_high": high,
    }
