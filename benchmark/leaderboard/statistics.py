"""Intervals, tests and ranks for one table; interquartile means, profiles and fronts across tables.

Sources: Student's interval and tests as in scipy.stats; R. Agarwal et al., Deep reinforcement learning at the edge of the
statistical precipice, NeurIPS 2021 (interquartile mean, stratified bootstrap); E. Dolan and J. Moré, Benchmarking
optimization software with performance profiles, Mathematical Programming 91, 2002.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
Scores = Sequence[NDArray[np.float64]]  # for each task [methods, seeds], NaN where a seed is missing
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@cache
def t_critical(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The quantile that leaves (1 - confidence) / 2 of Student's distribution above it."""
    return float(stats.t.ppf(0.5 + confidence / 2, degrees))


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Half-width of Student's interval of the mean; NaN for fewer than two values.

    The percentile bootstrap covers only three quarters where it promises 95 % at n = 3, so it is not used here.
    """
    n = len(values)
    if n < 2:
        return math.nan
    return t_critical(n - 1, confidence) * float(np.std(values, ddof=1)) / math.sqrt(n)


def differs(first: Mapping[int, float], second: Mapping[int, float], confidence: float = CONFIDENCE) -> bool:
    """Whether two methods' values by seed differ: paired t-test over shared seeds, Welch's test when fewer than two are
    shared. With a single value each there is nothing to test: they differ when the numbers do."""
    shared = first.keys() if first.keys() == second.keys() else first.keys() & second.keys()
    if len(shared) >= 2:
        difference = [first[s] - second[s] for s in shared]
        if max(difference) - min(difference) < 1e-12:
            return abs(difference[0]) > 1e-12
        # |mean| outside its interval: the decision of scipy.stats.ttest_rel, at a hundredth of its time
        n, mean = len(difference), math.fsum(difference) / len(difference)
        variance = math.fsum([(d - mean) ** 2 for d in difference]) / (n - 1)
        return abs(mean) > t_critical(n - 1, confidence) * math.sqrt(variance / n)
    if len(first) >= 2 and len(second) >= 2:
        test = stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False)
        return bool(test.pvalue < 1 - confidence)
    return float(np.mean(list(first.values()))) != float(np.mean(list(second.values())))


def shared_ranks(values: Mapping[str, Mapping[int, float]], direction: str) -> dict[str, int]:
    """Competition ranks by mean; a method shares the rank of the best one above it that it does not differ from."""
    sign = -1.0 if direction == "up" else 1.0
    means = {name: sign * sum(seeds.values()) / len(seeds) for name, seeds in values.items()}
    ranks: dict[str, int] = {}
    leader = ""
    for position, name in enumerate(sorted(values, key=lambda name: (means[name], name)), start=1):
        if leader and not differs(values[leader], values[name]):
            ranks[name] = ranks[leader]
        else:
            ranks[name], leader = position, name
    return ranks


# ------------------------------------------------------------------------------------------------- across tasks
def interquartile_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half of the scores along the last axis (Agarwal et al., section 4.3; scipy's trimmed mean)."""
    return np.asarray(stats.trim_mean(scores, 0.25, axis=-1), dtype=np.float64)


def mean_ranks(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over tasks of each method's rank, 1 the best: ``means`` [methods, tasks], larger is better; ties share the
    average of their places."""
    return np.asarray(stats.rankdata(-means, axis=0).mean(axis=1), dtype=np.float64)


def resample(scores: Scores, rng: np.random.Generator, *, tasks: bool) -> list[NDArray[np.float64]]:
    """One bootstrap replicate: seeds drawn with replacement within each task (the stratified bootstrap), the same for all
    methods, because seeds pair them; with ``tasks`` the tasks are drawn first, which adds the uncertainty of their choice."""
    chosen: Iterable[int] = rng.integers(len(scores), size=len(scores)) if tasks else range(len(scores))
    return [scores[t][:, rng.integers(scores[t].shape[1], size=scores[t].shape[1])] for t in chosen]


def bootstrap(
    scores: Scores,
    statistic: Callable[[Scores], NDArray[np.float64]],
    *,
    tasks: bool = True,
    replicates: int = 2000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """``statistic`` of the scores and the ends of its percentile interval, [methods] each."""
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(resample(scores, rng, tasks=tasks)) for _ in range(replicates)])
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    return statistic(scores), low, high


def iqm_statistic(scores: Scores) -> NDArray[np.float64]:
    """Interquartile mean over tasks x seeds of normalised scores, [methods]."""
    return interquartile_mean(np.concatenate(scores, axis=1))


def mean_rank_statistic(scores: Scores) -> NDArray[np.float64]:
    """Mean rank over tasks of each method's mean over seeds, [methods]."""
    return mean_ranks(np.stack([task.mean(axis=1) for task in scores], axis=1))


def performance_ratios(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dolan and Moré's ratios r [methods, tasks]: a cost (positive, smaller is better) over the best one on its task;
    infinite where a method has none (NaN). A task that nobody solved is infinite for all."""
    best = np.nanmin(np.where(np.isnan(costs), np.inf, costs), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(costs == best, 1.0, costs / best)
    return np.where(np.isnan(ratios) | ~np.isfinite(best), np.inf, ratios)


def performance_profile(costs: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """rho [methods, factors]: the share of tasks that a method solves within ``factors`` times the best cost."""
    ratios = performance_ratios(costs)
    return (ratios[:, :, None] <= np.asarray(factors) * (1 + 1e-12)).mean(axis=1)


def as_cost(value: float, direction: str, unit: str) -> float:
    """A metric as something whose ratios mean something: what is better small stays, decibels become the squared error
    that they are the logarithm of, and of what is better large the reciprocal is taken. NaN where no ratio exists."""
    if unit == "dB":
        return float(10 ** ((-value if direction == "up" else value) / 10))
    if direction == "down":
        return value if value >= 0 else math.nan
    return 1 / value if value > 0 else math.nan


def pareto_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of ``points`` [N, D], larger is better in every column, no other dominates: as good in all and better in one.
    Points with NaN are never on it."""
    finite: NDArray[np.bool_] = np.asarray(~np.isnan(points).any(axis=1))
    if points.shape[1] == 2:  # from the best of the first column on, who is better in the second than all before
        order = np.flatnonzero(finite)
        order = order[np.lexsort((-points[order, 1], -points[order, 0]))]
        best = np.maximum.accumulate(points[order, 1])
        places = np.searchsorted(best, points[order, 1])  # the first that is as good in the second column
        on: NDArray[np.bool_] = np.zeros(len(points), dtype=np.bool_)
        on[order] = (points[order, 0] == points[order[places], 0]) & (points[order, 1] == best)
        return on
    front, others = finite.copy(), points[finite]
    for index in np.flatnonzero(finite):
        front[index] = not ((others >= points[index]).all(1) & (others > points[index]).any(1)).any()
    return front


def seconds_to_quality(
    seconds: Sequence[float], values: Sequence[float], target: float, direction: str
) -> float | None:
    """When a curve of evaluations first reaches ``target``; None where it never does."""
    sign = 1.0 if direction == "up" else -1.0
    return next((at for at, value in zip(seconds, values, strict=True) if sign * value >= sign * target), None)
