"""How far two surfaces or two solids are apart, from points on them or in them.

Surfaces are compared through uniform samples: P [N, 3] of the reconstruction, T [M, 3] of the truth. d(p, T) is the
Euclidean distance from p to the nearest point of T. Sampling alone keeps these from reaching 0: two independent sets of N
points on a surface of area A are about 0.5 sqrt(A / N) apart, squared about A / (pi N); compare with two samples of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from adlbench.benchmark.api import AdlbenchError

Array = NDArray[np.floating]

MORE_ROUNDS = 20  # at the last entropy, times ``rounds``
MAX_PAIRS = 2**31  # of the earth mover's distance: 16 GiB a table


@dataclass(frozen=True)
class SurfaceComparison:
    """The nearest neighbours between two sets of surface points, and the metrics that follow from them."""

    accuracy: Array  # [N] d(p, T) for every p of the reconstruction
    completeness: Array  # [M] d(t, P) for every t of the truth
    alignment: Array  # [N] |cosine| between the normal at p and that of its nearest point of T; empty without normals
    alignment_back: Array  # [M] the same from the truth

    @property
    def chamfer_l1(self) -> float:
        """Mean of the mean accuracy and the mean completeness, unsquared (Occupancy Networks, without its factor of 10)."""
        return float(self.accuracy.mean() + self.completeness.mean()) / 2

    @property
    def chamfer_l2(self) -> float:
        """Sum of the mean squared distances in both directions, as in DeepSDF."""
        return float(np.square(self.accuracy).mean() + np.square(self.completeness).mean())

    def f_score(self, threshold: float) -> float:
        """Harmonic mean of precision and recall: the shares of distances that are at most ``threshold``."""
        precision = float((self.accuracy <= threshold).mean())
        recall = float((self.completeness <= threshold).mean())
        return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0

    @property
    def normal_consistency(self) -> float:
        """Mean of both directions' mean |cosine| to the nearest point's normal: blind to the orientation of normals."""
        return float(self.alignment.mean() + self.alignment_back.mean()) / 2


def compare_surfaces(
    points: Array, truth: Array, normals: Array | None = None, truth_normals: Array | None = None
) -> SurfaceComparison:
    """``points`` [N, 3] against ``truth`` [M, 3], none of them empty; unit normals of both, or of none.

    In float64. Raises AdlbenchError for a set that is empty, or holds what is not finite.
    """
    _check_sets(points, truth, "surfaces")
    accuracy, nearest = cKDTree(truth).query(points)
    completeness, nearest_back = cKDTree(points).query(truth)
    if normals is None or truth_normals is None:
        return SurfaceComparison(accuracy, completeness, np.empty(0), np.empty(0))
    forward = np.abs((normals * truth_normals[nearest]).sum(1))
    back = np.abs((truth_normals * normals[nearest_back]).sum(1))
    return SurfaceComparison(accuracy, completeness, forward, back)


def earth_movers_distance(points: Array, truth: Array, epsilon: float = 2e-3, rounds: int = 50) -> float:
    """Least mean Euclidean distance by which mass spread evenly over ``points`` [N, 3] can be moved onto ``truth`` [M, 3].

    For equal numbers that is the best assignment, and exact (SciPy's). Otherwise it comes from Sinkhorn's algorithm in
    logarithms with falling entropy (Schmitzer 2019), down to ``epsilon`` of the largest distance with ``rounds`` iterations at
    each of its halvings, and at the last one until all but ``epsilon`` of the mass is where it belongs. Its plan is then
    rounded to one that moves all mass exactly (Altschuler et al. 2017, algorithm 2), so the value is never below the true
    distance; at the default it is within 2 % of it, or ``epsilon`` times the largest distance. O(N M) memory: some thousand
    points; from 2^31 pairs on refused. In float64. Raises AdlbenchError for a set that is empty, or holds what is not finite.
    """
    _check_sets(points, truth, "earth mover's distance")
    if len(points) * len(truth) >= MAX_PAIRS:
        raise AdlbenchError(
            f"earth mover's distance of {len(points):,} and {len(truth):,} points keeps tables of "
            f"{len(points) * len(truth) * 8 / 2**30:,.0f} GiB; draw a few thousand of each"
        )
    cost = cdist(points, truth)
    if not np.isfinite(cost).all():  # the square of the distance has overflowed
        raise AdlbenchError("earth mover's distance of points more than 1e150 apart; scale them down")
    if len(points) == len(truth):
        return float(cost[linear_sum_assignment(cost)].mean())
    return _sinkhorn(cost, epsilon, rounds)


def _check_sets(points: Array, truth: Array, name: str) -> None:
    if not len(points) or not len(truth):
        raise AdlbenchError(f"{name} of {len(points)} and {len(truth)} points; both sets need at least one")
    for values in (points, truth):
        if not np.isfinite(values).all():
            raise AdlbenchError(f"{name} of a point that is not finite; what made it has diverged, or is damaged")


def _sinkhorn(cost: Array, epsilon: float, rounds: int) -> float:
    """The cost of a transport plan between two uniform distributions whose points are ``cost`` [N, M] apart."""
    largest = float(cost.max())
    if largest == 0:
        return 0.0
    sources, targets = cost.shape
    mass, wanted = np.full(sources, 1 / sources), np.full(targets, 1 / targets)
    f, g = np.zeros((sources, 1)), np.zeros((1, targets))
    entropy, more = largest, MORE_ROUNDS
    while True:
        entropy = max(entropy / 2, epsilon * largest)
        for _ in range(rounds):
            f = -entropy * (_log_sum_exp((g - cost) / entropy, 1) - np.log(targets))
            g = -entropy * (_log_sum_exp((f - cost) / entropy, 0) - np.log(sources))
        if entropy > epsilon * largest:
            continue
        plan = np.exp((f + g - cost) / entropy) * (mass[:, None] * wanted)
        more -= 1
        if (
            more == 0 or np.abs(plan.sum(1) - mass).sum() <= epsilon
        ):  # what is rounded is moved by the largest distance at most
            break
    plan *= np.minimum(mass / plan.sum(1), 1)[:, None]
    plan *= np.minimum(wanted / plan.sum(0), 1)
    left, lacking = mass - plan.sum(1), wanted - plan.sum(0)
    if left.sum() > 0:
        plan += np.outer(left, lacking) / left.sum()
    return float((plan * cost).sum())


def _log_sum_exp(values: Array, axis: int) -> Array:
    highest = values.max(axis, keepdims=True)
    total: Array = highest + np.log(np.exp(values - highest).sum(axis, keepdims=True))
    return total


def intersection_over_union(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """IoU of two sets given as occupancies at the same points; 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0


def sample_mesh(vertices: Array, faces: NDArray[np.integer], n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """``n`` uniform points [n, 3] of the triangles ``faces`` [F, 3] and their unit normals [n, 3], counter-clockwise out."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)  # [F, 3], twice the area long
    double_area = np.linalg.norm(cross, axis=1)
    chosen = rng.choice(len(faces), n, p=double_area / double_area.sum())
    u, v = rng.random((2, n, 1))
    root = np.sqrt(u)  # uniform in the triangle: the density grows linearly with the distance from the corner a
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    return points, cross[chosen] / double_area[chosen, None]
