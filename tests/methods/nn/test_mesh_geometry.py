"""Geometry of meshes against closed forms: planes and spheres, where everything is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from scipy.spatial import Delaunay

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.mesh_geometry import HeatGeodesics, PolarPatch, PolarPatches, TriangleMesh


def plane(side: int = 21) -> TriangleMesh:
    """The unit square, irregularly triangulated inside, with a border."""
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    inner = np.zeros((side, side, 2))
    inner[1:-1, 1:-1] = np.random.default_rng(0).uniform(-0.2, 0.2, (side - 2, side - 2, 2)) / side
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (index[i : i + side - 1, j : j + side - 1].ravel() for i, j in ((0, 0), (1, 0), (1, 1), (0, 1)))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    flat = (np.stack([x, y], -1) + inner).reshape(-1, 2)
    return TriangleMesh(np.concatenate([flat, np.zeros((side * side, 1))], 1), faces)


def sphere(subdivisions: int = 3) -> TriangleMesh:
    ball = trimesh.creation.icosphere(subdivisions)
    return TriangleMesh(np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64))


def test_the_laplacian_of_a_triangle_is_its_cotangents() -> None:
    right = TriangleMesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    expected = np.array([[1, -0.5, -0.5], [-0.5, 0.5, 0], [-0.5, 0, 0.5]])  # cot 90 = 0, cot 45 = 1
    np.testing.assert_allclose(right.laplacian.toarray(), expected, atol=1e-12)
    np.testing.assert_allclose(right.mass, 1 / 6)


def test_the_laplacian_is_exact_on_linear_functions_and_semi_definite() -> None:
    mesh = plane()
    x, y = mesh.vertices[:, 0], mesh.vertices[:, 1]
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    assert np.abs(mesh.laplacian @ (2 * x - 3 * y + 1))[inside].max() < 1e-12
    assert mesh.laplacian.nnz == len(mesh.vertices) + 2 * len(mesh.edges)
    assert np.linalg.eigvalsh(mesh.laplacian.toarray()).min() > -1e-10
    assert mesh.mass.sum() == pytest.approx(1.0)


def test_gradient_and_divergence_make_the_laplacian() -> None:
    mesh, rng = sphere(2), np.random.default_rng(0)
    values = rng.standard_normal(len(mesh.vertices))
    np.testing.assert_allclose(-mesh.divergence(mesh.gradient(values)), mesh.laplacian @ values, atol=1e-10)
    flat = plane()
    gradient = flat.gradient(3 * flat.vertices[:, 0] - flat.vertices[:, 1])
    np.testing.assert_allclose(gradient, np.tile([3.0, -1, 0], (len(flat.faces), 1)), atol=1e-10)


def test_the_spectrum_of_the_sphere_is_l_times_l_plus_1() -> None:
    mesh = sphere()
    values, vectors = mesh.spectrum(9)
    np.testing.assert_allclose(values, [0, 2, 2, 2, 6, 6, 6, 6, 6], rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(vectors.T @ (mesh.mass[:, None] * vectors), np.eye(9), atol=1e-8)
    assert np.array_equal(mesh.spectrum(9)[1], vectors)  # the same each time


def test_heat_distances_on_a_plane_and_a_sphere() -> None:
    mesh = plane(41)
    source = int(np.abs(mesh.vertices - [0.5, 0.5, 0]).sum(1).argmin())
    exact = np.linalg.norm(mesh.vertices - mesh.vertices[source], axis=1)
    found = HeatGeodesics(mesh).distance(source)
    assert np.abs(found - exact).mean() < 0.02 * exact.max()
    ball = sphere()
    exact = np.arccos(np.clip(ball.vertices @ ball.vertices[0], -1, 1))
    found = HeatGeodesics(ball).distance(0)
    assert found[0] == 0
    assert np.abs(found - exact).mean() < 0.02 * math.pi


def test_heat_distances_from_several_sources_and_in_several_parts() -> None:
    one = sphere(2)
    both = TriangleMesh(
        np.concatenate([one.vertices, one.vertices + 5]), np.concatenate([one.faces, one.faces + len(one.vertices)])
    )
    heat = HeatGeodesics(both)
    found = heat.distance(0)
    assert np.isnan(found[len(one.vertices) :]).all()
    np.testing.assert_allclose(found[: len(one.vertices)], HeatGeodesics(one).distance(0), atol=1e-3)
    opposite = int((one.vertices @ one.vertices[0]).argmin())
    nearest = np.minimum(*(np.arccos(np.clip(one.vertices @ one.vertices[s], -1, 1)) for s in (0, opposite)))
    assert np.abs(HeatGeodesics(one).distance(0, opposite) - nearest).mean() < 0.06


def turned(patch: PolarPatch, azimuth: np.ndarray) -> np.ndarray:
    """[n - 1] in [0, pi]: by how much the angles differ from the azimuths, which begin elsewhere."""
    turn = np.exp(1j * (azimuth[patch.vertices] - patch.angle))[1:]
    return np.abs(np.angle(turn / turn.mean()))


def scattered() -> TriangleMesh:
    """The Delaunay triangulation of random points: among its triangles are many that are obtuse, and some slivers."""
    points = np.random.default_rng(0).random((900, 2))
    faces = Delaunay(points).simplices.astype(np.int64)
    a, b, c = points[faces].swapaxes(0, 1)
    clockwise = np.linalg.det(np.stack([b - a, c - a], axis=1)) < 0
    faces[clockwise] = faces[clockwise, ::-1]
    return TriangleMesh(np.concatenate([points, np.zeros((900, 1))], 1), faces)


@pytest.mark.parametrize("mesh", [plane(), scattered()], ids=["grid", "scattered"])
def test_polar_patches_on_a_plane_are_polar_coordinates(mesh: TriangleMesh) -> None:
    centre = int(np.abs(mesh.vertices - [0.5, 0.5, 0]).sum(1).argmin())
    patch = PolarPatches(mesh).patch(centre, 0.3)
    offset = mesh.vertices - mesh.vertices[centre]
    exact = np.linalg.norm(offset, axis=1)
    assert set(patch.vertices) == set(np.flatnonzero(exact <= 0.3))
    np.testing.assert_allclose(patch.distance, exact[patch.vertices], rtol=1e-12)
    assert turned(patch, np.arctan2(offset[:, 1], offset[:, 0])).max() < 1e-12
    assert (np.diff(patch.distance) >= 0).all()


def test_polar_patches_on_a_sphere() -> None:
    """Edges are chords, and at each vertex the polyhedron lacks an angle of about 4 pi / V: with four times the
    triangles about a half of the errors remains."""
    worst = []
    for subdivisions in (3, 4):
        mesh = sphere(subdivisions)
        patch = PolarPatches(mesh).patch(100, 1.0)
        north = mesh.vertices[100]
        east = np.cross(north, [0.3, 0.5, 0.8])
        east /= np.linalg.norm(east)
        exact = np.arccos(np.clip(mesh.vertices[patch.vertices] @ north, -1, 1))
        off = turned(patch, np.arctan2(mesh.vertices @ np.cross(north, east), mesh.vertices @ east))
        worst.append((np.abs(patch.distance / np.maximum(exact, 1e-9) - 1)[1:].max(), off.max(), off.mean()))
    assert worst[0][0] < 0.005
    assert worst[0][1] < 0.03
    assert worst[0][2] < 0.006
    assert worst[1][0] < 0.6 * worst[0][0]
    assert worst[1][2] < 0.6 * worst[0][2]


def test_a_patch_at_the_border_and_one_of_a_single_vertex() -> None:
    mesh = plane()
    patch = PolarPatches(mesh).patch(0, 0.2)  # a corner of the square: a quarter of the circle
    np.testing.assert_allclose(patch.distance, np.linalg.norm(mesh.vertices[patch.vertices], axis=1), rtol=1e-12)
    assert patch.angle[1:].max() - patch.angle[1:].min() == pytest.approx(math.pi / 2, abs=1e-12)
    assert PolarPatches(mesh).patch(0, 1e-6).vertices.tolist() == [0]


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((3, 2)), np.array([[0, 1, 2]]), "vertices of shape"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "not finite"),
        (np.full((3, 3), -np.inf), np.array([[0, 1, 2]]), "not finite"),
        (np.eye(3), np.array([[0.0, 1, 2]]), "faces of float64; integers"),
        (np.eye(3), np.array([[-1, 1, 2]]), "name vertices -1..2"),
        (np.eye(3), np.zeros((0, 3), dtype=np.int64), "at least one face"),
        (np.eye(3), np.array([[0, 1, 3]]), "name vertices 0..3 of 3"),
        (np.eye(3), np.array([[0, 1, 1]]), "have no area"),
    ],
)
def test_what_is_no_mesh_is_named(vertices: np.ndarray, faces: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TriangleMesh(vertices, faces)
    with pytest.raises(DataError, match="eigenvectors wanted"):
        sphere(1).spectrum(1000)
    with pytest.raises(DataError, match="around vertex 42 of 42"):
        PolarPatches(sphere(1)).patch(42, 0.1)
    with pytest.raises(DataError, match="radius 0 or more"):
        PolarPatches(sphere(1)).patch(0, -0.1)
    with pytest.raises(DataError, match="sources"):
        HeatGeodesics(sphere(1)).distance()


def test_one_triangle() -> None:
    mesh = TriangleMesh(np.array([[0.0, 0, 0], [-3, 0, 0], [0, -4, 0]]), np.array([[0, 1, 2]]))
    values, vectors = mesh.spectrum(2)
    assert values[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(mesh.laplacian @ vectors, mesh.mass[:, None] * vectors * values, atol=1e-9)
    patch = PolarPatches(mesh).patch(0, 3.5)
    assert (patch.vertices.tolist(), patch.distance.tolist()) == ([0, 1], [0.0, 3.0])
    assert HeatGeodesics(mesh).distance(0)[0] == 0


def test_vertices_of_no_face_change_nothing_for_the_others() -> None:
    """Scanners and exporters leave them; their rows of both matrices are empty."""
    one = sphere(2)
    count = len(one.vertices)
    more = TriangleMesh(np.concatenate([[[9.0, 9, 9]], one.vertices, [[-8.0, 0, 0]]]), one.faces + 1)
    values, vectors = more.spectrum(6)
    np.testing.assert_allclose(values, one.spectrum(6)[0], atol=1e-9)
    assert not vectors[[0, count + 1]].any()
    np.testing.assert_allclose(vectors.T @ (more.mass[:, None] * vectors), np.eye(6), atol=1e-8)
    heat = HeatGeodesics(more)
    found = heat.distance(1)
    assert np.isnan(found[[0, count + 1]]).all()
    np.testing.assert_allclose(found[1:-1], HeatGeodesics(one).distance(0), atol=1e-6)
    alone = heat.distance(0)
    assert alone[0] == 0
    assert np.isnan(alone[1:]).all()
    assert PolarPatches(more).patch(0, 1.0).vertices.tolist() == [0]


def test_the_scale_of_a_mesh_does_not_matter() -> None:
    mesh = sphere(2)
    for scale in (1e-9, 1e9):
        scaled = TriangleMesh(mesh.vertices * scale, mesh.faces)
        np.testing.assert_allclose(
            HeatGeodesics(scaled).distance(3) / scale, HeatGeodesics(mesh).distance(3), atol=1e-6
        )
        np.testing.assert_allclose(scaled.spectrum(5)[0] * scale**2, mesh.spectrum(5)[0], atol=1e-6)
        patches = PolarPatches(scaled).patch(3, 0.5 * scale), PolarPatches(mesh).patch(3, 0.5)
        assert set(patches[0].vertices) == set(patches[1].vertices)
        np.testing.assert_allclose(patches[0].distance / scale, patches[1].distance, rtol=1e-12)


def test_patches_need_faces_that_are_oriented_alike_and_share_edges() -> None:
    mesh = sphere(1)
    turned_faces = mesh.faces.copy()
    turned_faces[::2] = turned_faces[::2, ::-1]
    for faces in (turned_faces, np.concatenate([mesh.faces, mesh.faces[:1]])):
        with pytest.raises(DataError, match="in the same direction"):
            PolarPatches(TriangleMesh(mesh.vertices, faces))
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    bow_tie = PolarPatches(TriangleMesh(corners, np.array([[0, 1, 2], [0, 3, 4]])))
    with pytest.raises(DataError, match="vertex 0 joins parts"):
        bow_tie.patch(0, 2.0)
    assert bow_tie.patch(1, 9.0).vertices.tolist() == [1, 0, 2]


def test_more_than_2_to_the_31_entries_are_refused() -> None:
    """Without their memory: views of one vertex, and of one face."""
    faces = np.broadcast_to(np.array([[0, 1, 2]]), (2**31 // 6 + 1, 3))
    with pytest.raises(DataError, match="3 vertices and 357,913,942 faces"):
        TriangleMesh(np.eye(3), faces)
    with pytest.raises(DataError, match="2,147,483,648 vertices and 1 faces"):
        TriangleMesh(np.broadcast_to(np.zeros(3), (2**31, 3)), faces[:1])
