"""The accuracy verdict against scipy, and its error rates in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from adlbench.benchmark.regression.accuracy import judge, one_sided_ends


def by_seed(values: np.ndarray) -> dict[int, float]:
    return dict(enumerate(map(float, values)))


@pytest.mark.parametrize("n", [2, 5, 30])
def test_ends_are_those_of_students_test(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    low, high = one_sided_ends(values)
    assert low == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").confidence_interval(0.95).low)
    assert high == pytest.approx(stats.ttest_1samp(values, 0, alternative="less").confidence_interval(0.95).high)


def test_ends_of_one_value_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least two"):
        one_sided_ends([1.0])


@pytest.mark.parametrize("direction", ["up", "down"])
def test_false_alarms_and_power_with_five_seeds(direction: str) -> None:
    """Seeds differ by 0.4 points, pairs correlate by 0.7, the margin is half a point (reference/infrastructure.md, section 4)."""
    rng, sign, margin = np.random.default_rng(0), 1 if direction == "up" else -1, 0.5
    counts = {}
    for drop in (0.0, 2 * margin):
        found = []
        for _ in range(400):
            shared = 0.4 * np.sqrt(0.7) * rng.normal(size=5)
            base, head = (90 + shared + 0.4 * np.sqrt(0.3) * rng.normal(size=5) for _ in range(2))
            found.append(judge(by_seed(base), by_seed(head - sign * drop), direction, margin).outcome)
        counts[drop] = found.count("worse") / len(found), found.count("pass") / len(found)
    assert counts[0.0][0] <= 0.05
    assert counts[0.0][1] >= 0.8
    assert counts[2 * margin][0] >= 0.95
    assert counts[2 * margin][1] == 0


def test_fewer_than_five_seeds_are_never_a_verdict() -> None:
    values = by_seed(np.full(4, 0.9))
    verdict = judge(values, values, "up", 0.01)
    assert verdict.outcome == "inconclusive"
    assert "4 shared seeds; 5 are needed" in verdict.reason


def test_only_shared_seeds_are_paired() -> None:
    base = by_seed(np.linspace(0.8, 0.9, 6))
    head = {seed + 1: base[seed] for seed in base}  # seed 1 of the head is seed 0's value: a constant shift downwards
    verdict = judge(base, head, "up", 0.01)
    assert verdict.seeds == 5
    assert verdict.change == pytest.approx(-0.02)
    assert verdict.outcome == "worse"


def test_a_small_certain_drop_is_within_the_margin() -> None:
    base = by_seed(np.linspace(0.8, 0.9, 5))
    verdict = judge(base, {seed: value - 0.002 for seed, value in base.items()}, "up", 0.01)
    assert verdict.outcome == "pass"
    assert verdict.high < 0


def test_spread_seeds_are_inconclusive() -> None:
    rng = np.random.default_rng(0)
    verdict = judge(by_seed(rng.normal(0.9, 0.05, 5)), by_seed(rng.normal(0.9, 0.05, 5)), "up", 0.01)
    assert verdict.outcome == "inconclusive"
    assert "use more seeds" in verdict.reason


def test_items_are_counted_in_the_direction_of_the_metric() -> None:
    base = {seed: np.array([1.0, 1.0, 0.0, 0.5]) for seed in range(5)}
    head = {seed: np.array([2.0, 1.0, -1.0, 0.75]) for seed in range(5)}
    values = dict.fromkeys(range(5), 1.0)
    up, down = (judge(values, values, direction, 0.1, base, head) for direction in ("up", "down"))
    assert (up.items_better, up.items_worse) == (2, 1)
    assert (down.items_better, down.items_worse) == (1, 2)
    expected = stats.ttest_1samp([1.0, 0.0, -1.0, 0.25], 0, alternative="greater").confidence_interval(0.95).low
    assert up.item_low == pytest.approx(expected)
