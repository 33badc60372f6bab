"""MeshCNN's edges: what must not depend on the order of faces, and meshes that stay meshes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import Delaunay

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.mesh_edges import EdgeMesh, MeshConv, edge_features, pool_edges, unpool_edges

TETRAHEDRON = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]])


def ball(subdivisions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces, dtype=np.int64)


def check_mesh(mesh: EdgeMesh, euler: int) -> None:
    """Every edge in two faces, every face a triangle of three vertices, vertices - edges + faces as before."""
    assert (np.bincount(mesh.face_edges.ravel(), minlength=len(mesh.ends)) == 2).all()
    for edges in mesh.face_edges:
        assert len(np.unique(mesh.ends[edges])) == 3
    assert len(np.unique(mesh.ends)) - len(mesh.ends) + len(mesh.face_edges) == euler
    assert len(np.unique(mesh.ends, axis=0)) == len(mesh.ends)


def test_the_four_neighbours_are_the_other_edges_of_both_faces() -> None:
    mesh = EdgeMesh.from_faces(TETRAHEDRON)
    assert mesh.ends.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    # edge (0, 1): in face (0, 1, 2) then come (1, 2), (2, 0); in face (0, 3, 1), from (1, 0) on, (0, 3), (3, 1)
    assert mesh.neighbours[0].tolist() == [3, 1, 2, 4]
    for edge, (a, b, c, d) in enumerate(EdgeMesh.from_faces(ball()[1]).neighbours.tolist()):
        assert len({edge, a, b, c, d}) == 5


def test_edges_of_a_single_triangle_have_a_border() -> None:
    mesh = EdgeMesh.from_faces(np.array([[0, 1, 2]]))
    assert mesh.neighbours.tolist() == [[2, 1, -1, -1], [0, 2, -1, -1], [1, 0, -1, -1]]
    out = MeshConv(2, 3)(torch.randn(3, 2), torch.from_numpy(mesh.neighbours))
    assert out.isfinite().all()
    pooled = pool_edges(torch.randn(3, 2), mesh, 1)
    assert len(pooled.features) == 3  # nothing at a border collapses


def test_edges_in_three_faces_are_named() -> None:
    with pytest.raises(DataError, match=r"edge \[0, 1\] is in 3 faces"):
        EdgeMesh.from_faces(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    with pytest.raises(DataError, match="at least one face"):
        EdgeMesh.from_faces(np.zeros((0, 3), dtype=np.int64))
    for faces in ([[0, 1, 1]], [[2, 1, 2]], [[0, 0, 1]], [[0, 1, -1]]):
        with pytest.raises(DataError, match="a vertex twice, or one below 0"):
            EdgeMesh.from_faces(np.array(faces))
    with pytest.raises(DataError, match="have no area"):
        edge_features(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(DataError, match="not finite"):
        edge_features(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    with pytest.raises(DataError, match="features of 5 edges for a mesh of 6"):
        pool_edges(torch.zeros(5, 1), EdgeMesh.from_faces(TETRAHEDRON), 3)
    with pytest.raises(DataError, match=r"\(6, 3\) for 6 edges"):
        MeshConv(1, 1)(torch.zeros(6, 1), torch.zeros(6, 3, dtype=torch.int64))
    with pytest.raises(DataError, match="pooling to 0"):
        pool_edges(torch.zeros(6, 1), EdgeMesh.from_faces(TETRAHEDRON), 0)


def test_features_of_a_cube_and_their_invariance() -> None:
    box = trimesh.creation.box()
    vertices, faces = np.asarray(box.vertices), np.asarray(box.faces, dtype=np.int64)
    found = edge_features(vertices, faces)
    sides, diagonals = found[found[:, 0] < 3], found[found[:, 0] > 3]
    assert (len(sides), len(diagonals)) == (12, 6)
    np.testing.assert_allclose(sides[:, 0], np.pi / 2)
    np.testing.assert_allclose(diagonals, np.tile([np.pi, np.pi / 2, np.pi / 2, 0.5, 0.5], (6, 1)), atol=1e-7)
    np.testing.assert_allclose(sides[:, 1:3], np.pi / 4)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    np.testing.assert_allclose(edge_features(3 * vertices @ turn + 7, faces), found, atol=1e-7)


def test_convolution_does_not_depend_on_the_order_of_faces() -> None:
    vertices, faces = ball(1)
    shuffled = np.random.default_rng(0).permutation(faces)
    conv, features = MeshConv(5, 4).double(), torch.from_numpy(edge_features(vertices, faces))
    outs = [conv(features, torch.from_numpy(EdgeMesh.from_faces(f).neighbours)) for f in (faces, shuffled)]
    torch.testing.assert_close(*outs)
    small, neighbours = torch.randn(6, 2, dtype=torch.float64), EdgeMesh.from_faces(TETRAHEDRON).neighbours
    conv = MeshConv(2, 3).double()
    assert torch.autograd.gradcheck(lambda x: conv(x, torch.from_numpy(neighbours)), small.requires_grad_())


@pytest.mark.parametrize("target", [400, 250, 60])
def test_collapses_leave_a_closed_mesh(target: int) -> None:
    mesh = EdgeMesh.from_faces(ball()[1])  # 480 edges
    features = torch.randn(480, 3, generator=torch.Generator().manual_seed(0))
    pooled = pool_edges(features, mesh, target)
    assert target - 3 < len(pooled.features) <= target
    check_mesh(pooled.mesh, euler=2)
    assert len(pooled.origin) == 480
    assert torch.equal(pooled.origin.unique(), torch.arange(len(pooled.features)))


@pytest.mark.parametrize("seed", range(3))
def test_collapses_leave_a_mesh_where_there_are_borders_and_holes(seed: int) -> None:
    """A triangulated square, a torus, a ball with holes: still manifold, of the same kind, and the neighbours are right."""
    rng = np.random.default_rng(seed)
    square = Delaunay(rng.random((50, 2))).simplices.astype(np.int64)
    torus = np.asarray(trimesh.creation.torus(1, 0.3, major_sections=8, minor_sections=6).faces, dtype=np.int64)
    holes = ball()[1][rng.permutation(320)[:270]]
    mesh = EdgeMesh.from_faces((square, torus, holes)[seed])
    euler = len(np.unique(mesh.ends)) - len(mesh.ends) + len(mesh.face_edges)
    features = torch.rand(len(mesh.ends), 3, generator=torch.Generator().manual_seed(seed))
    for target in (len(mesh.ends) * 2 // 3, len(mesh.ends) // 3, 1):
        left = pool_edges(features, mesh, target).mesh
        faces = [set(edges) for edges in left.face_edges.tolist()]
        assert set(np.bincount(left.face_edges.ravel(), minlength=len(left.ends))) <= {1, 2}
        assert len({tuple(sorted(np.unique(left.ends[list(edges)]))) for edges in faces}) == len(faces)
        assert len(np.unique(left.ends, axis=0)) == len(left.ends)
        assert len(np.unique(left.ends)) - len(left.ends) + len(faces) == euler
        for edge, (a, b, c, d) in enumerate(left.neighbours.tolist()):
            around = [each for each in faces if edge in each]
            assert all({edge, *pair} in around for pair in ((a, b), (c, d)) if pair != (-1, -1))
            assert sum(pair != (-1, -1) for pair in ((a, b), (c, d))) == len(around)


def test_the_weakest_edge_goes_first_and_features_are_means() -> None:
    mesh = EdgeMesh.from_faces(ball()[1])
    features = torch.arange(1.0, 481.0)[:, None]
    features[200] = 0.01
    pooled = pool_edges(features, mesh, 479)
    assert len(pooled.features) == 477
    a, b, c, d = mesh.neighbours[200].tolist()
    for one, other in ((a, b), (c, d)):
        assert pooled.origin[one] == pooled.origin[other]
        mean = (features[one] + features[other] + features[200]) / 3
        torch.testing.assert_close(pooled.features[pooled.origin[one]], mean)
    untouched = [edge for edge in range(480) if edge not in (200, a, b, c, d)]
    assert torch.equal(pooled.features[pooled.origin[untouched]], features[untouched])


def test_pooling_to_the_present_number_changes_nothing() -> None:
    mesh, features = EdgeMesh.from_faces(ball(1)[1]), torch.randn(120, 2)
    pooled = pool_edges(features, mesh, 120)
    assert torch.equal(pooled.features, features)
    assert np.array_equal(np.sort(pooled.mesh.neighbours, 1), np.sort(mesh.neighbours, 1))


def test_gradients_of_pooling_and_unpooling() -> None:
    mesh = EdgeMesh.from_faces(ball(1)[1])
    features = torch.rand(120, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    first = pool_edges(features, mesh, 90)
    levels = [first, pool_edges(first.features, first.mesh, 60)]
    assert unpool_edges(levels[1].features, levels).shape == (120, 2)

    def net(x: torch.Tensor) -> torch.Tensor:
        return unpool_edges(pool_edges(x, mesh, 90).features, [first])

    assert torch.autograd.gradcheck(net, features.requires_grad_())


def test_no_edges_no_channels_and_bfloat16() -> None:
    conv = MeshConv(2, 3)
    assert conv(torch.zeros(0, 2), torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 3)
    mesh = EdgeMesh.from_faces(ball()[1])
    assert pool_edges(torch.zeros(480, 0), mesh, 400).features.shape[1] == 0
    features = torch.rand(480, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    half, exact = pool_edges(features, mesh, 60), pool_edges(features.float(), mesh, 60)
    assert torch.equal(half.features, exact.features.bfloat16())  # means of dozens, rounded once
    assert torch.equal(half.origin, exact.origin)
    neighbours = torch.from_numpy(mesh.neighbours)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(features.float(), neighbours)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), conv(features.float(), neighbours), atol=0.03, rtol=0.03)


def test_float32_convolution_to_1e_5_of_float64() -> None:
    mesh, conv = EdgeMesh.from_faces(ball()[1]), MeshConv(5, 8)
    features, neighbours = torch.randn(480, 5), torch.from_numpy(mesh.neighbours)
    single = conv(features, neighbours)
    torch.testing.assert_close(single.double(), conv.double()(features.double(), neighbours), atol=1e-5, rtol=1e-5)


def test_vertices_beyond_2_to_the_31() -> None:
    small, large = EdgeMesh.from_faces(TETRAHEDRON), EdgeMesh.from_faces(TETRAHEDRON + 2**31)
    assert large.ends.tolist() == [[a + 2**31, b + 2**31] for a, b in small.ends.tolist()]
    np.testing.assert_array_equal(large.neighbours, small.neighbours)
