"""The piecewise-constant fit against brute force, and on series whose steps are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from adlbench.benchmark.regression.steps import _costs, _fit, detect_steps, steps


def series(*levels: tuple[int, float], noise: float = 0.02, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(level * (1 + noise * rng.laplace())) for length, level in levels for _ in range(length)]


@pytest.mark.parametrize("shortest", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.05, 0.5, 5.0])
def test_dynamic_programming_finds_what_trying_all_borders_finds(gamma: float, shortest: int) -> None:
    values = np.random.default_rng(0).normal(size=9).round(2).tolist()

    def cost(borders: tuple[int, ...]) -> float:
        ends = [0, *borders, len(values)]
        parts = [values[a:b] for a, b in itertools.pairwise(ends)]
        return sum(float(np.abs(np.array(part) - np.median(part)).sum()) for part in parts) + gamma * len(parts)

    candidates = [c for n in range(len(values)) for c in itertools.combinations(range(1, len(values)), n)]
    candidates = [c for c in candidates if min(b - a for a, b in itertools.pairwise([0, *c, len(values)])) >= shortest]
    ends, error = _fit(_costs(values), gamma, shortest)
    assert error + gamma * len(ends) == pytest.approx(min(map(cost, candidates)))


def test_costs_are_absolute_deviations_from_the_median() -> None:
    values = np.random.default_rng(1).normal(size=12).tolist()
    costs = _costs(values)
    for left, right in itertools.combinations(range(13), 2):
        part = np.array(values[left:right])
        assert costs[left][right - left - 1] == pytest.approx(np.abs(part - np.median(part)).sum())


@pytest.mark.parametrize("seed", range(5))
def test_one_step_is_found_where_it_is(seed: int) -> None:
    found = steps(series((20, 100.0), (15, 80.0), seed=seed))
    assert len(found) == 1
    assert abs(found[0].index - 20) <= 1
    assert found[0].relative == pytest.approx(-0.2, abs=0.03)


def test_two_steps_and_their_levels() -> None:
    pieces = detect_steps(series((12, 1.0), (12, 2.0), (12, 1.5)))
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 12), (12, 24), (24, 36)]
    np.testing.assert_allclose([piece.level for piece in pieces], [1.0, 2.0, 1.5], rtol=0.03)


def test_noise_and_single_outliers_are_no_steps() -> None:
    quiet = [bool(steps(series((30, 50.0), seed=seed))) for seed in range(20)]
    assert sum(quiet) <= 2
    with_outlier = series((30, 50.0))
    with_outlier[12] = 200.0
    assert steps(with_outlier) == []


def test_short_and_constant_series() -> None:
    assert detect_steps([]) == []
    assert steps([3.0]) == []
    assert steps([3.0] * 10) == []
    exact = steps([3.0] * 5 + [4.0] * 5)
    assert [(step.index, step.before, step.after) for step in exact] == [(5, 3.0, 4.0)]
