"""Statistics against scipy, brute force and published worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from adlbench.benchmark.leaderboard.statistics import (
    as_cost,
    bootstrap,
    differs,
    interquartile_mean,
    iqm_statistic,
    mean_rank_statistic,
    mean_ranks,
    pareto_front,
    performance_profile,
    performance_ratios,
    seconds_to_quality,
    t_interval,
)


def test_t_interval_of_a_textbook_example() -> None:
    """NIST/SEMATECH e-Handbook, section 1.3.5.2: ZARR13.DAT, N = 195, mean 9.261460, deviation 0.022789, the 95 % limits
    9.258242 and 9.264679. The interval depends on the data through n and the deviation alone."""
    values = np.random.default_rng(0).normal(size=195)
    values = 9.261460 + 0.022789 * (values - values.mean()) / values.std(ddof=1)
    half = t_interval(values.tolist())
    assert 9.261460 - half == pytest.approx(9.258242, abs=2e-6)
    assert 9.261460 + half == pytest.approx(9.264679, abs=2e-6)


def test_t_interval_covers_what_it_promises_at_three_seeds() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(4000, 3))
    covered = np.mean([abs(d.mean()) <= t_interval(d.tolist()) for d in draws])
    assert covered == pytest.approx(0.95, abs=0.012)  # three standard errors


def test_paired_test_decides_as_scipys() -> None:
    """Student's sleep data (Student 1908; R's `sleep`): paired t = -4.0621 on 9 degrees, p = 0.002833; and many random pairs."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    assert stats.ttest_rel(first, second).statistic == pytest.approx(-4.0621, abs=1e-4)
    a, b = dict(enumerate(first)), dict(enumerate(second))
    assert differs(a, b)
    assert differs(a, b, confidence=0.997)
    assert not differs(a, b, confidence=0.9975)  # p = 0.002833 lies between
    rng = np.random.default_rng(2)
    for _ in range(300):
        n = int(rng.integers(2, 8))
        x, y = rng.normal(size=n), rng.normal(0.8, 1, size=n)
        assert differs(dict(enumerate(x)), dict(enumerate(y))) == (stats.ttest_rel(x, y).pvalue < 0.05)


def test_interquartile_mean() -> None:
    """Agarwal et al. 2021, section 4.3: the mean of the middle half. 1..12 has 4..9 in the middle: 6.5; an outlier is not seen."""
    scores = np.arange(1.0, 13.0)
    assert interquartile_mean(scores) == 6.5
    assert interquartile_mean(np.where(scores == 12, 1e9, scores)) == 6.5
    many = np.random.default_rng(0).normal(size=(5, 40))
    expected = [np.sort(row)[10:30].mean() for row in many]
    np.testing.assert_allclose(interquartile_mean(many), expected)


def test_mean_ranks_share_ties() -> None:
    means = np.array([[0.9, 0.5, 0.7], [0.8, 0.5, 0.9], [0.1, 0.2, 0.3]])
    np.testing.assert_allclose(mean_ranks(means), [(1 + 1.5 + 2) / 3, (2 + 1.5 + 1) / 3, 3])


def test_bootstrap_interval_of_a_mean_is_scipys() -> None:
    """One task, one method: the stratified bootstrap is the ordinary one."""
    data = np.random.default_rng(3).exponential(size=40)
    value, low, high = bootstrap(
        [data[None]], lambda s: np.concatenate(s, axis=1).mean(axis=1), tasks=False, replicates=4000
    )
    expected = stats.bootstrap(
        (data,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert value[0] == data.mean()
    assert (low[0], high[0]) == (pytest.approx(expected.low, rel=0.03), pytest.approx(expected.high, rel=0.03))


def test_bootstrap_over_tasks_is_wider_and_keeps_methods_paired() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(size=(8, 1, 3))  # the difficulty of 8 tasks and 3 seeds is common to both methods
    scores = [np.concatenate([task, task + 0.1]) for task in base]
    _, low, high = bootstrap(scores, iqm_statistic, tasks=True, replicates=500)
    _, low_seeds, high_seeds = bootstrap(scores, iqm_statistic, tasks=False, replicates=500)
    assert (high - low > high_seeds - low_seeds).all()
    value, low, high = bootstrap(scores, mean_rank_statistic, replicates=200)
    assert value.tolist() == low.tolist() == high.tolist() == [2.0, 1.0]  # whoever is ahead on every seed stays ahead


def test_performance_profile_of_a_hand_example() -> None:
    """Dolan and Moré's definition on three solvers and four problems; the last solver fails on two, nobody solves the fifth."""
    costs = np.array([[1.0, 4.0, 10.0, 2.0, np.nan], [2.0, 2.0, 10.0, 8.0, np.nan], [4.0, np.nan, 5.0, np.nan, np.nan]])
    inf = math.inf
    assert performance_ratios(costs).tolist() == [[1, 2, 2, 1, inf], [2, 1, 2, 4, inf], [4, inf, 1, inf, inf]]
    found = performance_profile(costs, np.array([1.0, 2.0, 4.0, 100.0]))
    np.testing.assert_allclose(found, np.array([[2, 4, 4, 4], [1, 3, 4, 4], [1, 1, 2, 2]]) / 5)


def test_metrics_as_costs() -> None:
    assert as_cost(30.0, "up", "dB") / as_cost(40.0, "up", "dB") == pytest.approx(10.0)  # ten times the squared error
    assert as_cost(0.5, "up", "") == 2.0
    assert as_cost(0.5, "down", "") == 0.5
    assert math.isnan(as_cost(0.0, "up", ""))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_pareto_front_is_what_nothing_dominates(dimensions: int) -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        points = rng.integers(0, 6, (30, dimensions)).astype(float)  # with ties
        points[rng.random(30) < 0.1, 0] = np.nan
        found = pareto_front(points)
        for index, point in enumerate(points):
            dominated = any((q >= point).all() and (q > point).any() for q in points if not np.isnan(q).any())
            assert found[index] == (not np.isnan(point).any() and not dominated)


def test_seconds_to_quality() -> None:
    seconds, psnr = [1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 19.0, 30.0]
    assert seconds_to_quality(seconds, psnr, 19.5, "up") == 2.0
    assert seconds_to_quality(seconds, psnr, 31.0, "up") is None
    assert seconds_to_quality(seconds, [4.0, 3.0, 2.0, 1.0], 2.0, "down") == 3.0
