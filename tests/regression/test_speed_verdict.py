"""The speed verdict against scipy, and its error rates in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from adlbench.benchmark.regression.speed import (
    SpeedRule,
    bootstrap_interval,
    enough,
    interquartile_mean,
    judge,
)

QUICK = SpeedRule(resamples=400)


def rounds(
    n: int, slower: float = 0.0, noise: float = 0.04, seed: int = 0, drift: float = 0.0, offset: float = 0.0
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of base, control and head: log-normal noise, one round in ten disturbed, drift that all three share."""
    rng = np.random.default_rng(seed)
    shared = drift * np.linspace(0, 1, n)[:, None] + 0.2 * rng.normal(size=(n, 1))
    times = np.exp(shared + noise * rng.normal(size=(n, 3)) + (rng.random((n, 3)) < 0.1) * rng.exponential(0.5, (n, 3)))
    base, control, head = (0.004 * times).T
    return base.tolist(), (control * (1 + offset)).tolist(), (head * (1 + slower)).tolist()


def test_interquartile_mean_is_scipys_trimmed_mean() -> None:
    values = np.random.default_rng(0).normal(size=(7, 41))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1))


def test_interval_agrees_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.05, 80)
    ours = bootstrap_interval(values, SpeedRule(confidence=0.95, resamples=8000))
    expanded = 2 * stats.norm.sf(np.sqrt(80 / 79) * stats.t.ppf(0.975, 79))  # Hesterberg 2015: 0.0455 instead of 0.05
    peer = stats.bootstrap(
        (values,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), confidence_level=1 - expanded,
        n_resamples=8000, method="percentile", rng=2,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose([ours.low, ours.high], peer, atol=6e-4)
    assert ours.estimate == pytest.approx(stats.trim_mean(values, 0.25))


def test_false_alarms_and_power_in_simulation() -> None:
    """Independent rounds, so that this is the rule alone; tests/benchmarks/gate_power.py measures real processes."""
    counts = {}
    for slower in (0.0, 0.03, 0.05):
        verdicts = [judge(*rounds(150, slower, seed=seed), QUICK).outcome for seed in range(100)]
        counts[slower] = verdicts.count("slower")
    assert counts[0.0] <= 1
    assert counts[0.03] >= 60
    assert counts[0.05] >= 95


def lucky(n: int, slower: float = 0.0, luck: float = 0.025, seed: int = 0) -> tuple[tuple[list[float], ...], list[int]]:
    """Four rounds a start, where each process of each start is by ``luck`` faster or slower as long as it lives."""
    starts = np.repeat(np.arange(n), 4)
    own = np.exp(luck * np.random.default_rng(10**6 + seed).normal(size=(n, 3)))[starts]
    return tuple((np.array(rounds(4 * n, slower, seed=seed)) * own.T).tolist()), starts.tolist()


def test_the_interval_covers_the_truth_as_often_as_it_says_when_processes_differ_by_luck() -> None:
    """12 starts are few: a plain percentile interval of 99 % covers some 97 %."""
    verdicts = [judge(*sides, QUICK, starts) for sides, starts in (lucky(12, seed=seed) for seed in range(400))]
    covered = [verdict.change.low <= 0 <= verdict.change.high for verdict in verdicts]
    assert np.mean(covered) >= 0.98
    single = [judge(*lucky(12, seed=seed)[0], QUICK).change for seed in range(50)]  # as if rounds were all there is
    assert np.mean([interval.low <= 0 <= interval.high for interval in single]) < 0.95


def test_false_alarms_and_power_when_processes_differ_by_luck() -> None:
    counts = {}
    for slower in (0.0, 0.05):
        verdicts = [judge(*sides, QUICK, starts) for sides, starts in (lucky(60, slower, seed=s) for s in range(100))]
        counts[slower] = {outcome: [v.outcome for v in verdicts].count(outcome) for outcome in ("slower", "pass")}
    assert counts[0.0]["slower"] <= 1
    assert counts[0.0]["pass"] >= 90  # the others are inconclusive
    assert counts[0.05]["slower"] >= 90


def test_few_starts_are_never_a_pass_however_many_rounds_they_have() -> None:
    sides, starts = lucky(9)
    verdict = judge(*sides, QUICK, starts)
    assert (verdict.outcome, verdict.rounds, verdict.starts) == ("inconclusive", 36, 9)
    assert "9 of 10 starts" in verdict.reason
    assert not enough(*sides, QUICK, starts)
    sides, starts = lucky(40, luck=0.001)
    assert enough(*(np.array(side) ** 0 for side in sides), QUICK, starts)


def test_drift_that_both_sides_share_is_no_change() -> None:
    assert judge(*rounds(100, drift=1.0), QUICK).outcome == "pass"


def test_a_faster_head_passes_and_is_named() -> None:
    verdict = judge(*rounds(150, slower=-0.2), QUICK)
    assert verdict.outcome == "pass"
    assert "faster by" in verdict.reason


@pytest.mark.parametrize("offset", [0.08, -0.08])
def test_a_control_that_differs_from_itself_makes_the_machine_too_noisy(offset: float) -> None:
    verdict = judge(*rounds(150, slower=0.2, offset=offset), QUICK)
    assert verdict.outcome == "inconclusive"
    assert "machine too noisy" in verdict.reason


def test_too_few_rounds_are_never_a_pass() -> None:
    verdict = judge(*rounds(12), QUICK)
    assert (verdict.outcome, verdict.rounds) == ("inconclusive", 12)
    assert "12 of 30 rounds" in verdict.reason
    assert judge([0.1], [0.1], [0.1]).outcome == "inconclusive"


def test_a_wide_interval_is_inconclusive() -> None:
    verdicts = [judge(*rounds(40, noise=0.2, seed=seed), QUICK) for seed in range(20)]
    assert sum(verdict.outcome == "inconclusive" for verdict in verdicts) >= 10
    assert any("give it more time" in verdict.reason for verdict in verdicts)
    assert all(verdict.change.high < 0.03 for verdict in verdicts if verdict.outcome == "pass")


def test_measuring_ends_when_the_interval_is_narrow_and_not_before_thirty_rounds() -> None:
    quiet = rounds(30, noise=0.001)
    assert enough(*quiet, QUICK)
    assert not enough(*(side[:29] for side in quiet), QUICK)  # type: ignore[arg-type]
    assert not enough(*rounds(30, noise=0.3), QUICK)
    assert enough(*rounds(QUICK.max_rounds, noise=3.0), QUICK)


def test_looks_do_not_depend_on_the_effect() -> None:
    """Ending when a difference shows would invite false alarms."""
    base, control, head = rounds(50, noise=0.05)
    for factor in (0.5, 1.0, 2.0):
        scaled = [factor * value for value in head]
        assert enough(base, control, scaled, QUICK) == enough(base, control, head, QUICK)


def test_relative_interval_is_in_shares() -> None:
    verdict = judge(*rounds(300, slower=0.10, noise=0.01), QUICK)
    assert verdict.change.estimate == pytest.approx(0.10, abs=0.01)
    assert verdict.change.low < verdict.change.estimate < verdict.change.high
    assert math.isclose(verdict.head_seconds / verdict.base_seconds, 1.1, rel_tol=0.1)
