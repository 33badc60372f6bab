"""Surface and volume comparisons against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.metrics.geometry import (
    Array,
    compare_surfaces,
    earth_movers_distance,
    intersection_over_union,
    sample_mesh,
)


def sphere(n: int, radius: float = 1.0, seed: int = 0) -> tuple[Array, Array]:
    normals = np.random.default_rng(seed).normal(size=(n, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return radius * normals, normals


def test_everything_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    (points, normals), (truth, truth_normals) = (sphere(n, r, s) for n, r, s in ((70, 1.0, 1), (50, 0.9, 2)))
    points = points + rng.normal(size=points.shape) * 0.05
    pairs = np.sqrt(((points[:, None] - truth[None]) ** 2).sum(-1))  # [70, 50]
    found = compare_surfaces(points, truth, normals, truth_normals)
    forward, back = pairs.min(1), pairs.min(0)
    assert found.chamfer_l1 == pytest.approx((forward.mean() + back.mean()) / 2)
    assert found.chamfer_l2 == pytest.approx((forward**2).mean() + (back**2).mean())
    precision, recall = (forward <= 0.2).mean(), (back <= 0.2).mean()
    assert found.f_score(0.2) == pytest.approx(2 * precision * recall / (precision + recall))
    cosines = np.abs(normals @ truth_normals.T)
    expected = (cosines[np.arange(70), pairs.argmin(1)].mean() + cosines[pairs.argmin(0), np.arange(50)].mean()) / 2
    assert found.normal_consistency == pytest.approx(expected)


def test_parallel_planes() -> None:
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 20), [0.0]), -1).reshape(-1, 3)
    found = compare_surfaces(grid, grid + np.array([0, 0, 0.3]))
    assert found.chamfer_l1 == pytest.approx(0.3)
    assert found.chamfer_l2 == pytest.approx(2 * 0.09)
    assert found.f_score(0.29) == 0
    assert found.f_score(0.31) == 1


def test_one_point_repeated_points_and_none() -> None:
    one, two = np.array([[1.0, -2, 3]]), np.array([[1.0, -2, 3], [1.0, -2, 4], [1.0, -2, 4]])
    found = compare_surfaces(one, two)
    assert found.chamfer_l1 == pytest.approx((0 + 2 / 3) / 2)
    assert found.chamfer_l2 == pytest.approx(2 / 3)
    assert compare_surfaces(one.astype(np.float32), two.astype(np.float16)).chamfer_l2 == pytest.approx(2 / 3)
    for pair in ((one[:0], one), (one, one[:0])):
        with pytest.raises(AdlbenchError, match="both sets need at least one"):
            compare_surfaces(*pair)


def test_concentric_spheres() -> None:
    found = compare_surfaces(*(sphere(20000, r, s)[0] for r, s in ((1.0, 0), (0.8, 1))))
    assert found.chamfer_l1 == pytest.approx(0.2, rel=0.01)
    assert found.chamfer_l2 == pytest.approx(0.08, rel=0.02)


def test_missing_half_costs_completeness_only() -> None:
    whole = sphere(4000)[0]
    half = whole[whole[:, 1] > 0]
    found = compare_surfaces(half, whole)
    assert found.accuracy.max() == 0
    assert found.completeness.mean() > 0.1
    assert found.f_score(0.01) == pytest.approx(2 / 3, abs=0.02)  # precision 1, recall 1/2


def test_sampling_floor_is_as_documented() -> None:
    n = 20000
    found = compare_surfaces(sphere(n, seed=1)[0], sphere(n, seed=2)[0])
    assert found.chamfer_l1 == pytest.approx(0.5 * np.sqrt(4 * np.pi / n), rel=0.02)
    assert found.chamfer_l2 == pytest.approx(2 * 4 * np.pi / (np.pi * n), rel=0.03)


def test_normal_consistency_ignores_orientation_and_sees_tilt() -> None:
    points, normals = sphere(3000)
    assert compare_surfaces(points, points, normals, -normals).normal_consistency == pytest.approx(1)
    tangents = np.cross(normals, [0.0, 1.0, 0.0])
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    tilted = np.cos(np.pi / 3) * normals + np.sin(np.pi / 3) * tangents
    assert compare_surfaces(points, points, tilted, normals).normal_consistency == pytest.approx(0.5)


def test_intersection_over_union() -> None:
    a, b = np.array([1, 1, 1, 0, 0], dtype=bool), np.array([0, 1, 1, 1, 0], dtype=bool)
    assert intersection_over_union(a, b) == 0.5
    assert intersection_over_union(a, a) == 1
    assert intersection_over_union(a, ~a) == 0
    assert intersection_over_union(a & ~a, a & ~a) == 1  # two empty sets agree


def test_mesh_samples_are_uniform_and_face_outwards() -> None:
    mesh = trimesh.creation.box(extents=(1, 2, 3))
    points, normals = sample_mesh(mesh.vertices, mesh.faces, 30000, np.random.default_rng(0))
    for axis, size in enumerate((1, 2, 3)):
        on_face = np.isclose(np.abs(points[:, axis]), size / 2)
        assert on_face.mean() == pytest.approx(6 / size * 2 / 22, abs=0.01)
        np.testing.assert_allclose(normals[on_face & (points[:, axis] > 0)][:, axis].min(), 1, atol=1e-6)
    inside_face = points[np.isclose(points[:, 0], 0.5)][:, 1:]
    counts = np.histogram2d(*inside_face.T, bins=4)[0]
    assert counts.min() > 0.8 * counts.mean()


# ------------------------------------------------------------------------------------------------- earth mover's distance
@pytest.mark.parametrize("number", [1, 2, 60])
def test_earth_movers_distance_is_the_best_assignment_or_little_above(number: int) -> None:
    rng = np.random.default_rng(number)
    points, truth = rng.normal(size=(number, 3)), rng.normal(size=(number, 3)) + 1
    cost = cdist(points, truth)
    exact = cost[linear_sum_assignment(cost)].mean()
    assert earth_movers_distance(points, truth) == pytest.approx(exact)
    doubled = earth_movers_distance(np.concatenate([points, points]), truth)  # the same mass, by Sinkhorn
    assert exact - 1e-9 <= doubled <= 1.03 * exact


def exact_transport(cost: Array) -> float:
    """The linear programme: each point gives, and takes, what it must."""
    sources, targets = cost.shape
    gives = np.kron(np.eye(sources), np.ones(targets))
    takes = np.kron(np.ones(sources), np.eye(targets))
    shares = np.concatenate([np.full(sources, 1 / sources), np.full(targets, 1 / targets)])
    return float(linprog(cost.ravel(), A_eq=np.concatenate([gives, takes]), b_eq=shares).fun)


@pytest.mark.parametrize("kind", ["spread", "lattice", "clusters", "outlier", "far away", "repeated"])
@pytest.mark.parametrize("seed", range(4))
def test_earth_movers_distance_is_that_of_the_linear_programme(kind: str, seed: int) -> None:
    """Never below, and above by 2 % or by 2e-3 of the largest distance; clusters converge slowly."""
    rng = np.random.default_rng(seed)
    points, truth = rng.normal(size=(rng.integers(1, 25), 3)), rng.normal(size=(rng.integers(1, 25), 3))
    if kind == "lattice":
        points, truth = np.round(points), np.round(truth)
    elif kind == "clusters":
        truth = truth * 1e-3 + points[rng.integers(0, len(points), len(truth))]
    elif kind == "outlier":
        truth[0] += 100
    elif kind == "far away":
        points, truth = points + 1e4, truth + 1e4
    elif kind == "repeated":
        points, truth = np.repeat(points, 2, 0), np.repeat(truth, 3, 0)
    cost = cdist(points, truth)
    exact, found = exact_transport(cost), earth_movers_distance(points, truth)
    assert exact - 1e-9 * cost.max() <= found <= exact + max(0.02 * exact, 2e-3 * cost.max())


def test_earth_movers_distance_of_unequal_sets_and_of_none() -> None:
    """Half of the mass of one point goes to each of two; one set with more copies is as far as the entropy blurs it."""
    assert earth_movers_distance(np.zeros((1, 3)), np.array([[1.0, 0, 0], [0, 3, 0]])) == pytest.approx(2)
    assert earth_movers_distance(np.ones((3, 3)), np.ones((2, 3))) == 0
    points = np.random.default_rng(0).normal(size=(50, 3))
    assert earth_movers_distance(points, points[::-1]) == 0
    assert earth_movers_distance(points, np.concatenate([points, points])) < 0.02 * np.ptp(points)
    with pytest.raises(AdlbenchError, match="0 and 50 points"):
        earth_movers_distance(points[:0], points)
    for bad in (np.nan, np.inf):
        for others in (points, points[:40]):  # exact, and by Sinkhorn, which would never end
            with pytest.raises(AdlbenchError, match="earth mover's distance of a point that is not finite"):
                earth_movers_distance(points * bad, others)
            with pytest.raises(AdlbenchError, match="surfaces of a point that is not finite"):
                compare_surfaces(others, points * bad)
    with pytest.raises(AdlbenchError, match="more than 1e150 apart"):
        earth_movers_distance(points * 1e200, points[:40])
    many = np.broadcast_to(np.zeros(3), (2**16, 3))
    with pytest.raises(AdlbenchError, match="65,536 and 32,768 points keeps tables of 16 GiB"):
        earth_movers_distance(many, many[: 2**15])
