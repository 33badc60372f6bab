"""Mesh geometry against potpourri3d (geometry-central) and robust-laplacian, where they are installed, on real meshes."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from adlbench import data_root
from adlbench.methods.nn.mesh_geometry import HeatGeodesics, PolarPatch, PolarPatches, TriangleMesh


def ball() -> TriangleMesh:
    mesh = trimesh.creation.icosphere(3)
    return TriangleMesh(np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64))


def real_mesh(name: str) -> TriangleMesh:
    path = data_root() / "meshes" / name
    if not path.exists():
        pytest.skip(f"{name} is not below the data root")
    mesh = trimesh.load(path, force="mesh")
    mesh.merge_vertices()
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    largest = max(mesh.split(only_watertight=False), key=lambda part: len(part.faces))
    return TriangleMesh(np.asarray(largest.vertices, dtype=np.float64), np.asarray(largest.faces, dtype=np.int64))


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["cow.off", "bunny.off"])
def test_laplacian_and_areas_of_real_meshes(name: str) -> None:
    potpourri3d = pytest.importorskip("potpourri3d")
    mesh = real_mesh(name)
    expected = potpourri3d.cotan_laplacian(mesh.vertices, mesh.faces)
    difference = abs(mesh.laplacian - expected).max()
    assert difference < 1e-8 * abs(expected).max()
    np.testing.assert_allclose(mesh.mass, potpourri3d.vertex_areas(mesh.vertices, mesh.faces), rtol=1e-9)


def test_laplacian_of_a_delaunay_mesh_is_the_robust_one() -> None:
    robust_laplacian = pytest.importorskip("robust_laplacian")
    mesh = ball()
    laplacian, mass = robust_laplacian.mesh_laplacian(mesh.vertices, mesh.faces, mollify_factor=0.0)
    assert abs(mesh.laplacian - laplacian).max() < 1e-6
    np.testing.assert_allclose(mesh.mass, mass.diagonal(), rtol=1e-6)


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["cow.off", "bunny.off"])
def test_heat_distances_on_real_meshes(name: str) -> None:
    potpourri3d = pytest.importorskip("potpourri3d")
    mesh = real_mesh(name)
    expected = potpourri3d.MeshHeatMethodDistanceSolver(mesh.vertices, mesh.faces, use_robust=False).compute_distance(5)
    found = HeatGeodesics(mesh).distance(5)
    assert np.abs(found - expected).max() < 1e-3 * expected.max()


def shortest(mesh: TriangleMesh, patch: PolarPatch) -> np.ndarray:
    """[n - 1]: lengths of straightest lines over the faces, from the centre to every other vertex."""
    potpourri3d = pytest.importorskip("potpourri3d")
    solver = potpourri3d.EdgeFlipGeodesicSolver(mesh.vertices, mesh.faces)
    lines = (solver.find_geodesic_path(patch.centre, int(vertex)) for vertex in patch.vertices[1:])
    return np.array([np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in lines])


def test_polar_patches_against_straightest_lines_and_the_logarithmic_map() -> None:
    """Most distances are exact; where a line passes a vertex on the longer side, theirs is the longer one. The angles are
    within the error of the logarithmic map, which is heat's."""
    potpourri3d = pytest.importorskip("potpourri3d")
    mesh = ball()
    patch = PolarPatches(mesh).patch(7, 0.8)
    excess = patch.distance[1:] / shortest(mesh, patch) - 1
    assert excess.max() < 1e-12
    assert np.median(np.abs(excess)) < 1e-12
    assert excess.min() > -0.003
    around = potpourri3d.MeshVectorHeatSolver(mesh.vertices, mesh.faces).compute_log_map(7)[patch.vertices[1:]]
    np.testing.assert_allclose(patch.distance[1:], np.linalg.norm(around, axis=1), rtol=0.015)
    turn = np.exp(1j * (np.arctan2(around[:, 1], around[:, 0]) - patch.angle[1:]))
    assert np.abs(np.angle(turn / turn.mean())).max() < 0.02


@pytest.mark.needs_data
def test_polar_patches_of_a_real_mesh_against_straightest_lines() -> None:
    mesh = real_mesh("bunny.off")
    patch = PolarPatches(mesh).patch(5, 8 * mesh.mean_edge)
    excess = patch.distance[1:] / shortest(mesh, patch) - 1
    assert len(excess) > 200
    assert excess.max() < 0.01  # behind a saddle no single unfolding is exact
    assert np.median(np.abs(excess)) < 0.002
