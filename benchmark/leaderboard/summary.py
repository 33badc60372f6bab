"""Across tables: interquartile mean, mean rank, performance profiles, each over the tables that all its methods have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.leaderboard.board import Board, SeedValues
from adlbench.benchmark.leaderboard.statistics import (
    as_cost,
    bootstrap,
    iqm_statistic,
    mean_rank_statistic,
    performance_profile,
)

SEEDS = 3  # at most so many of a method's seeds are drawn in a replicate; all methods need the same number
FACTORS = np.unique(np.round(np.geomspace(1, 16, 49), 3))
WORK = 4e6  # methods x tables x replicates: more tables, fewer replicates


@dataclass
class Estimate:
    value: float
    low: float  # of the 95 % bootstrap interval
    high: float


@dataclass
class Summary:
    """Methods of one task, fidelity and hardware that ran on the same tables; scores are 0 for the best trivial method (or the
    worst method, where there is none) and 1 for the best."""

    task: str
    fidelity: str
    hardware: str
    datasets: list[str]
    methods: list[str]
    iqm: list[Estimate] = field(default_factory=list)
    mean_rank: list[Estimate] = field(default_factory=list)
    profile: list[list[float]] = field(default_factory=list)  # method -> share of the tables within each of ``factors``
    time_profile: list[list[float]] = field(default_factory=list)  # the same of training seconds to the target quality
    factors: list[float] = field(default_factory=FACTORS.tolist)
    replicates: int = 0


def summaries(found: Sequence[tuple[Board, SeedValues]], *, replicates: int = 2000) -> list[Summary]:
    """One for each set of at least two tables that at least two methods have in common. Protocol, fidelity and hardware are
    never mixed; data of other versions are other tables."""
    groups: dict[tuple[str, str, str, str], list[tuple[Board, SeedValues]]] = {}
    for board, values in found:
        groups.setdefault((board.task, board.protocol, board.fidelity, board.hardware), []).append((board, values))
    result = []
    for group in groups.values():
        covers: dict[frozenset[int], None] = {}
        have = {m: frozenset(i for i, (_, v) in enumerate(group) if m in v) for _, v in group for m in v}
        for cover in have.values():
            covers.setdefault(cover, None)
        for cover in covers:
            methods = sorted(m for m, places in have.items() if places >= cover)
            if len(cover) >= 2 and len(methods) >= 2:
                result.append(_summary([group[i] for i in sorted(cover)], methods, replicates))
    return result


def _summary(tables: Sequence[tuple[Board, SeedValues]], methods: list[str], replicates: int) -> Summary:
    scores = [normalised(board, values, methods) for board, values in tables]
    count = int(max(100, min(replicates, WORK / (len(methods) * len(tables)))))
    board = tables[0][0]
    costs = np.full((len(methods), len(tables)), np.nan)
    for place, (table, values) in enumerate(tables):
        spec = table.metrics[table.primary]
        costs[:, place] = [as_cost(_mean(values[m]), spec["direction"], spec["unit"]) for m in methods]
    return Summary(
        task=board.task,
        fidelity=board.fidelity,
        hardware=board.hardware,
        datasets=[table.dataset for table, _ in tables],
        methods=methods,
        iqm=_estimates(bootstrap(scores, iqm_statistic, replicates=count)),
        mean_rank=_estimates(bootstrap(scores, mean_rank_statistic, replicates=count)),
        profile=performance_profile(costs, FACTORS).round(4).tolist(),
        time_profile=performance_profile(seconds_to_target(tables, methods), FACTORS).round(4).tolist(),
        replicates=count,
    )


def _mean(seeds: dict[int, float]) -> float:
    return sum(seeds.values()) / len(seeds)


def _estimates(found: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]) -> list[Estimate]:
    return [Estimate(float(v), float(low), float(high)) for v, low, high in zip(*found)]


def normalised(board: Board, values: SeedValues, methods: Sequence[str]) -> NDArray[np.float64]:
    """[methods, seeds]: 0 is the best trivial method's mean (the worst mean where there is none), 1 the best mean.

    The first seeds that every method has at least as many of, SEEDS at most; seeds pair the methods where they share them.
    """
    sign = 1.0 if board.metrics[board.primary]["direction"] == "up" else -1.0
    means = {method: sign * _mean(seeds) for method, seeds in values.items()}
    trivial = [means[row.method] for row in board.rows if row.trivial and row.method in means]
    low, high = max(trivial, default=min(means.values())), max(means.values())
    if high <= low:
        low = min(means.values())
    count = min(SEEDS, *(len(values[m]) for m in methods))
    drawn = np.array([[sign * values[m][s] for s in sorted(values[m])[:count]] for m in methods])
    return (drawn - low) / (high - low) if high > low else np.zeros_like(drawn)


def target_quality(board: Board) -> float | None:
    """Nine tenths of the way from the best trivial method (the worst method, where there is none) to the best."""
    sign = 1.0 if board.metrics[board.primary]["direction"] == "up" else -1.0
    means = [
        (sign * row.metrics[board.primary].mean, row.trivial) for row in board.rows if board.primary in row.metrics
    ]
    if not means:
        return None
    best = max(mean for mean, _ in means)
    start = max((mean for mean, trivial in means if trivial), default=min(mean for mean, _ in means))
    return sign * (start + 0.9 * (best - start))


def seconds_to_target(tables: Sequence[tuple[Board, SeedValues]], methods: Sequence[str]) -> NDArray[np.float64]:
    """[methods, tables] training seconds after which the target is known to be reached: those of the whole training, where
    its result is as good; NaN where it is not."""
    seconds = np.full((len(methods), len(tables)), np.nan)
    for place, (board, values) in enumerate(tables):
        target = target_quality(board)
        sign = 1.0 if board.metrics[board.primary]["direction"] == "up" else -1.0
        spent = {row.method: row.train_seconds.mean for row in board.rows if row.train_seconds is not None}
        for index, method in enumerate(methods):
            if target is not None and method in spent and sign * _mean(values[method]) >= sign * target - 1e-12:
                seconds[index, place] = spent[method]
    return seconds
