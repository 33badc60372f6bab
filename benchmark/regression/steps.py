"""Where a noisy series changes its level: the penalised piecewise-constant fit that asv uses.

The fit minimises, over the number of pieces, their borders and their levels,

    sum over points of |y_i - level of its piece|  +  gamma * (number of pieces),

an L1 Potts functional (Weinmann, Storath & Demaret, "The L1-Potts functional for robust jump-sparse reconstruction", SIAM J.
Numer. Anal. 53, 2015), by dynamic programming over the right ends of the pieces. As in asv (airspeed velocity, P. Virtanen,
asv/step_detect.py) gamma is chosen by an information criterion for Laplacian noise,

    m ln(error / m) + 4 pieces ln(m) / 2    over m points,

and a step counts when it is larger than the noise about it. A piece has at least two points, so that an outlier is no step.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SHORTEST = 2  # points of a piece: one alone is an outlier until the next agrees with it


@dataclass(frozen=True)
class Piece:
    start: int  # first index
    stop: int  # one past the last
    level: float  # median
    error: float  # mean absolute deviation from it


def _costs(values: Sequence[float]) -> list[list[float]]:
    """costs[left][length - 1]: the least sum of absolute deviations of ``values[left:left + length]`` from one level."""
    costs = []
    for left in range(len(values)):
        ordered: list[float] = []
        row = []
        for right in range(left, len(values)):
            bisect.insort(ordered, values[right])
            half = len(ordered) // 2
            row.append(math.fsum(ordered[-half:] if half else []) - math.fsum(ordered[:half]))
        costs.append(row)
    return costs


def _fit(costs: Sequence[Sequence[float]], gamma: float, shortest: int) -> tuple[list[int], float]:
    """Right ends of the best pieces of at least ``shortest`` points for this penalty, and their summed error."""
    size = len(costs)
    best, previous = [0.0], [0]
    for right in range(1, size + 1):
        lefts = range(
            max(1, right - shortest + 1)
        )  # where none is left over, the first piece is as short as it must be
        candidates = [best[left] + costs[left][right - left - 1] + gamma for left in lefts]
        left = int(np.argmin(candidates))
        best.append(candidates[left])
        previous.append(left)
    ends, right = [], size
    while right > 0:
        ends.append(right)
        right = previous[right]
    ends.reverse()
    return ends, best[-1] - gamma * len(ends)


def detect_steps(values: Sequence[float]) -> list[Piece]:
    """The pieces of the series, in order; one piece where nothing changes. NaN is not allowed."""
    size = len(values)
    if size == 0:
        return []
    costs = _costs(values)
    whole = costs[0][size - 1]
    # No fit is better than the noise from point to point, or every point would be a piece of its own.
    noise = float(np.median(np.abs(np.diff(values)))) / 2 if size > 1 else 0.0
    floor = max(noise, 1e-9 * float(np.median(np.abs(values))), 1e-300)
    best_ends, best_score = [size], math.inf
    for gamma in np.geomspace(max(whole, floor), max(whole, floor) * 1e-4, 40) if whole > 0 else []:
        ends, error = _fit(costs, float(gamma), SHORTEST)
        score = size * math.log(max(error / size, floor)) + 4 * len(ends) * math.log(size) / 2
        if score < best_score - 1e-9:
            best_ends, best_score = ends, score
    pieces = []
    for start, stop in zip([0, *best_ends], best_ends):
        level = float(np.median(values[start:stop]))
        pieces.append(Piece(start, stop, level, float(np.mean(np.abs(np.asarray(values[start:stop]) - level)))))
    return pieces


@dataclass(frozen=True)
class Step:
    index: int  # the first point at the new level
    before: float
    after: float

    @property
    def relative(self) -> float:
        return (self.after - self.before) / abs(self.before) if self.before else math.inf


def steps(values: Sequence[float]) -> list[Step]:
    """Changes of level that are larger than the noise on both sides of them."""
    pieces = detect_steps(values)
    return [
        Step(after.start, before.level, after.level)
        for before, after in pairwise(pieces)
        if abs(after.level - before.level) > max(before.error, after.error)
    ]
