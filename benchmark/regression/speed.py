"""Is B slower than A? The statistics of interleaved rounds; pure functions.

In every round each of three processes does the same work once, in random order: ``base`` and ``control`` run commit A,
``head`` runs commit B. Noise that lasts longer than a round meets all three and cancels in the ratios of one round. What
does not cancel is luck: a process keeps the pages of memory that it was given, and two processes of one code differ by some
percent as long as they live. So the processes are started anew again and again, and the starts are the samples: of each, the
interquartile mean over its rounds of log(head) - (log(base) + log(control)) / 2. The effect is the interquartile mean over
starts, with a paired bootstrap interval; the same statistic of log(control) - log(base) says how far two sets of processes
of the *same* code are apart in this job: its size is the noise floor (its own interval is not added: the noise of starts is
in the effect's). Where nothing tells starts apart, each round counts as one.

The verdict follows from the interval [low, high] of the effect and the minimum effect M (3 % by default):

    pass           high < M                       whatever there is, it is less than what counts
    slower         high >= M and low > floor      it is there, more than the machine can invent, and may well be M
    inconclusive   anything else: the interval holds both "nothing" and "M"; or the A/A control itself is slower or faster

Why not "low > M": a slow-down of exactly M would then be missed 39 times of 40. Measuring ends when the interval's half-width
is a third of M, so `slower` at an effect below M / 3 takes a deviation of more than four standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Outcome = Literal["pass", "slower", "inconclusive"]


@dataclass(frozen=True)
class SpeedRule:
    minimum_effect: float = 0.03  # relative; what counts
    confidence: float = 0.99
    min_rounds: int = 30
    max_rounds: int = 1000
    min_starts: int = 10  # of the processes
    look_every: int = 10  # rounds between two looks at the interval's width, where each round is a sample
    resamples: int = 2000

    @property
    def narrow_enough(self) -> float:
        """Half-width, in log ratio, at which measuring ends."""
        return math.log1p(self.minimum_effect) / 3


@dataclass(frozen=True)
class Interval:
    low: float
    estimate: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def relative(self) -> Interval:
        """From log ratio to relative change: +0.05 is 5 % more time."""
        return Interval(*(math.expm1(value) for value in (self.low, self.estimate, self.high)))


@dataclass(frozen=True)
class SpeedVerdict:
    outcome: Outcome
    reason: str
    change: Interval  # relative, head against base
    control: Interval  # relative, A against A
    floor: float  # relative
    rounds: int
    starts: int  # of the processes
    base_seconds: float  # median of a round
    head_seconds: float


def interquartile_mean(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Mean of the middle half: nearly as efficient as the mean, and a few disturbed rounds do not move it."""
    ordered = np.sort(values, axis=axis)
    cut = ordered.shape[axis] // 4
    return np.asarray(np.take(ordered, range(cut, ordered.shape[axis] - cut), axis=axis).mean(axis=axis))


def bootstrap_interval(log_ratios: Sequence[float] | NDArray[np.float64], rule: SpeedRule, seed: int = 0) -> Interval:
    """Bootstrap of the interquartile mean over samples, with percentiles that are expanded as Student's t is wider than the
    normal distribution: plain ones are too narrow for ten samples (Hesterberg, The American Statistician 69, 2015)."""
    values = np.asarray(log_ratios, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (rule.resamples, len(values)))
    tail = 100 * float(stats.norm.cdf(-math.sqrt(len(values) / (len(values) - 1)) * _quantile(len(values), rule)))
    low, high = np.percentile(interquartile_mean(values[draws]), [tail, 100 - tail])
    return Interval(float(low), float(interquartile_mean(values)), float(high))


def _quantile(samples: int, rule: SpeedRule) -> float:
    return float(stats.t.ppf(0.5 + rule.confidence / 2, samples - 1))


def _log_ratios(
    base: Sequence[float], control: Sequence[float], head: Sequence[float], starts: Sequence[int] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B against both A, A against A) by sample."""
    a, c, b = (np.log(np.maximum(np.asarray(side, dtype=np.float64), 1e-9)) for side in (base, control, head))
    rounds = np.stack([b - (a + c) / 2, c - a])
    if starts is not None:
        own = np.asarray(starts)
        rounds = np.stack([interquartile_mean(rounds[:, own == start]) for start in np.unique(own)], axis=1)
    return rounds[0], rounds[1]


def enough(
    base: Sequence[float],
    control: Sequence[float],
    head: Sequence[float],
    rule: SpeedRule,
    starts: Sequence[int] | None = None,
) -> bool:
    """Whether measuring may end. It looks at widths only, never at the effect, which would invite false alarms."""
    if len(head) >= rule.max_rounds:
        return True
    if len(head) < rule.min_rounds:
        return False
    if starts is None and (len(head) - rule.min_rounds) % rule.look_every:
        return False
    if starts is not None and len(set(starts)) < rule.min_starts:
        return False
    return max(_half_width(values, rule) for values in _log_ratios(base, control, head, starts)) <= rule.narrow_enough


def _half_width(values: NDArray[np.float64], rule: SpeedRule) -> float:
    """What the bootstrap's half-width will be about, from the winsorised variance (Tukey & McLaughlin 1963)."""
    return _quantile(len(values), rule) * float(stats.mstats.trimmed_stde(values, limits=(0.25, 0.25)))


def judge(
    base: Sequence[float],
    control: Sequence[float],
    head: Sequence[float],
    rule: SpeedRule | None = None,
    starts: Sequence[int] | None = None,
) -> SpeedVerdict:
    """From seconds by round. ``starts``: which start of the processes each round belongs to; None: each to its own."""
    rule, rounds = rule or SpeedRule(), len(head)
    samples = rounds if starts is None else len(set(starts))
    if samples < 2:  # not even an interval
        nothing, nan = Interval(math.nan, math.nan, math.nan), math.nan
        reason = f"only {rounds} rounds were measured"
        return SpeedVerdict("inconclusive", reason, nothing, nothing, nan, rounds, samples, nan, nan)
    log_change, log_noise = (bootstrap_interval(v, rule) for v in _log_ratios(base, control, head, starts))
    change, noise = log_change.relative(), log_noise.relative()
    floor, wanted = abs(noise.estimate), rule.minimum_effect
    noisy = (noise.low > 0 and noise.high >= wanted) or (noise.high < 0 and noise.low <= -wanted)
    outcome: Outcome = "inconclusive"
    if rounds < rule.min_rounds:
        reason = f"only {rounds} of {rule.min_rounds} rounds fitted into the time budget"
    elif starts is not None and samples < rule.min_starts:
        reason = f"only {samples} of {rule.min_starts} starts of the processes fitted into the time budget"
    elif noisy:
        reason = f"machine too noisy: the same code differs from itself by {100 * noise.estimate:+.1f} %"
    elif change.high < wanted:
        outcome, reason = "pass", f"less than {100 * wanted:.3g} % slower"
        if change.high < -floor and change.low <= -wanted:
            reason = f"faster by {-100 * change.estimate:.1f} %"
    elif change.low > floor:
        outcome, reason = "slower", f"slower by {100 * change.estimate:.1f} %"
    else:
        reason = (
            f"the interval reaches {100 * wanted:.3g} % and the noise floor of {100 * floor:.1f} %; give it more time"
        )
    medians = float(np.median(base)), float(np.median(head))
    return SpeedVerdict(outcome, reason, change, noise, floor, rounds, samples, *medians)
