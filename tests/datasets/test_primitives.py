"""Solids: exact distances, uniform samples, closed meshes."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy import stats
from scipy.spatial import cKDTree

from adlbench.datasets.generated.furniture_kit import along, bent, ellipse, rounded
from adlbench.datasets.generated.primitives import Array, Box, Lathe, Prism, Solid, Tube, triangulate

L_SHAPE = np.array([[0, 0], [1, 0], [1, 0.4], [0.4, 0.4], [0.4, 1], [0, 1]]) - 0.5
ARC = np.stack([np.cos(np.linspace(0, 2, 25)), np.sin(np.linspace(0, 2, 25)), 0 * np.linspace(0, 2, 25)], 1) * 0.5

SOLIDS: dict[str, Solid] = {
    "box": Box(np.array([0.3, 0.2, 0.5])),
    "prism, concave": Prism(L_SHAPE, 0.3),
    "prism, clockwise": Prism(L_SHAPE[::-1], 0.3),
    "cylinder": Lathe(np.array([[0, -0.4], [0.3, -0.4], [0.3, 0.4], [0, 0.4]])),
    "cone": Lathe(np.array([[0, -0.4], [0.5, -0.4], [0, 0.4]])),
    "ring": Lathe(np.array([[0.3, -0.1], [0.5, -0.2], [0.4, 0.2]])),
    "mug": Lathe(np.array([[0, 0], [0.4, 0], [0.5, 0.8], [0.42, 0.8], [0.33, 0.1], [0, 0.1]])),
    "capsule": Tube(np.array([[0, 0, 0], [0.2, 0.5, 0.1]]), 0.1),
    "bent tube": Tube(ARC, 0.08),
}
SOLID = pytest.mark.parametrize("solid", SOLIDS.values(), ids=SOLIDS.keys())


def probes(n: int = 3000) -> Array:
    return np.random.default_rng(1).uniform(-1, 1, (n, 3))


@SOLID
def test_distance_is_that_to_the_nearest_surface_point(solid: Solid) -> None:
    """Against brute force: never above the distance to a sample, and below by no more than the samples' spacing."""
    surface = solid.sample(60000, np.random.default_rng(0))[0]
    brute, distance = cKDTree(surface).query(probes())[0], np.abs(solid.sdf(probes()))
    assert (distance <= brute + 1e-9).all()
    assert (brute - distance).max() < 4 * np.sqrt(solid.area / 60000)


@SOLID
def test_sign_agrees_with_the_mesh(solid: Solid) -> None:
    points, mesh = probes(400), trimesh.Trimesh(*solid.mesh(), process=False)
    clear = np.abs(solid.sdf(points)) > 0.01  # circles are polygons in the mesh
    winding = winding_number(mesh.triangles, points[clear])
    np.testing.assert_array_equal(solid.sdf(points[clear]) < 0, winding > 0.5)


def winding_number(triangles: Array, points: Array) -> Array:
    """Sum of the signed solid angles / 4 pi (Van Oosterom and Strackee 1983): 1 inside, 0 outside."""
    a, b, c = (triangles[None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    top = (a * np.cross(b, c)).sum(-1)
    bottom = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.arctan2(top, bottom).sum(1) / (2 * np.pi)


@SOLID
def test_samples_lie_on_the_surface_with_outward_normals(solid: Solid) -> None:
    points, normals = solid.sample(2000, np.random.default_rng(2))
    np.testing.assert_allclose(solid.sdf(points), 0, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    step = 1e-4
    outward = np.isclose(solid.sdf(points + step * normals), step, rtol=0.02)
    assert outward.mean() > 0.99  # but for those next to a concave edge


@SOLID
def test_samples_are_uniform(solid: Solid) -> None:
    """Each coordinate is distributed as over the mesh, which trimesh samples by triangle areas."""
    points = solid.sample(20000, np.random.default_rng(3))[0]
    reference = trimesh.Trimesh(*solid.mesh(), process=False).sample(20000, seed=0)
    for axis in range(3):
        assert stats.ks_2samp(points[:, axis], reference[:, axis]).statistic < 0.04, (
            axis
        )  # the mesh's circles are polygons


@SOLID
def test_mesh_is_closed_and_faces_outwards(solid: Solid) -> None:
    mesh = trimesh.Trimesh(*solid.mesh(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert mesh.area == pytest.approx(solid.area, rel=0.03)
    np.testing.assert_allclose(solid.sdf(mesh.vertices), 0, atol=2e-3)


@SOLID
def test_bounds_hold_the_surface(solid: Solid) -> None:
    points = solid.sample(5000, np.random.default_rng(4))[0]
    low, high = solid.bounds
    assert (points >= low - 1e-9).all()
    assert (points <= high + 1e-9).all()


@SOLID
def test_scaling_scales_distances(solid: Solid) -> None:
    np.testing.assert_allclose(solid.scaled(1.7).sdf(1.7 * probes(100)), 1.7 * solid.sdf(probes(100)), atol=1e-12)


def test_closed_forms() -> None:
    points = probes()
    x, y, z = points.T
    r = np.hypot(x, z)
    cylinder = np.maximum(r - 0.3, np.abs(y) - 0.4)
    outside = np.hypot(np.maximum(r - 0.3, 0), np.maximum(np.abs(y) - 0.4, 0))
    np.testing.assert_allclose(SOLIDS["cylinder"].sdf(points), np.where(cylinder < 0, cylinder, outside), atol=1e-12)
    assert SOLIDS["cylinder"].area == pytest.approx(2 * np.pi * 0.3 * (0.8 + 0.3))
    assert SOLIDS["box"].area == pytest.approx(8 * (0.06 + 0.1 + 0.15))
    np.testing.assert_allclose(Box(np.ones(3)).sdf(np.array([[2.0, 2, 1], [0, 0, 0]])), [np.sqrt(2), -1])


def test_points_on_the_axis_of_a_lathe_are_inside() -> None:
    """The edge on the axis is no surface, and a ray that starts on it does not cross it."""
    np.testing.assert_allclose(
        SOLIDS["cylinder"].sdf(np.array([[0, 0, 0], [0, 0.39, 0], [0, 0.5, 0]])), [-0.3, -0.01, 0.1]
    )


def test_triangulation_covers_a_concave_polygon() -> None:
    triangles = L_SHAPE[triangulate(L_SHAPE)]
    u, v = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    area = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2
    assert (area > 0).all()
    assert area.sum() == pytest.approx(0.64)
    assert len(triangulate(rounded(1, 2, 0.3))) == 14
    assert len(triangulate(ellipse(1, 2))) == 22


def test_bars_point_where_they_are_told() -> None:
    for direction in np.random.default_rng(0).normal(size=(20, 3)):
        unit = direction / np.linalg.norm(direction)
        rotation = along(unit)
        np.testing.assert_allclose(rotation @ [0, 1, 0], unit, atol=1e-12)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(along(np.array([0.0, -1, 0])) @ [0, 1, 0], [0, -1, 0])


def test_bent_corner_is_an_arc_between_its_sides() -> None:
    path = bent(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.0]]), radius=0.2)
    centre = np.array([0.8, 0.2, 0])
    np.testing.assert_allclose(np.linalg.norm(path[1:-1] - centre, axis=1), 0.2)
    np.testing.assert_allclose(path[[1, -2]], [[0.8, 0, 0], [1, 0.2, 0]], atol=1e-12)
