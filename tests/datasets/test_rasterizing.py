"""The rasteriser against the ray tracer and closed forms."""

from __future__ import annotations

import numpy as np
import trimesh

from adlbench.datasets.generated.rasterizing import (
    NEAR,
    Light,
    Model,
    draw,
    look_at,
    pinhole,
    rasterize,
    unproject,
)


def sphere(radius: float = 0.8, subdivisions: int = 4) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def test_depth_of_a_sphere_is_the_closed_form() -> None:
    size, camera = (60, 80), look_at(np.array([1.0, 2.0, 2.5]), np.zeros(3))
    intrinsics = pinhole(size, np.radians(50))
    face, depth = rasterize(*sphere(), camera, intrinsics, size)
    row, column = np.indices(size)
    directions = np.stack([column + 0.5 - 40, row + 0.5 - 30, np.full(size, intrinsics[0, 0])], -1) / intrinsics[0, 0]
    centre = camera[:3, 3]  # of the sphere, in the camera's frame
    a, b = np.square(directions).sum(-1), directions @ centre
    inside = b**2 - a * (centre @ centre - 0.8**2)
    expected = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, 0)
    both = (expected > 0) & (depth > 0)
    assert ((expected > 0) != (depth > 0)).mean() < 0.01  # the silhouette of a polyhedron
    assert 0.05 < both.mean() < 0.6
    clear = both & (inside > 0.02 * inside.max())
    assert np.abs(expected - depth)[clear].max() < 0.02
    assert ((face >= 0) == (depth > 0)).all()


def test_faces_are_those_that_rays_meet_first() -> None:
    """Two spheres, one before the other, against every ray with every triangle (Moeller and Trumbore 1997)."""
    vertices, faces = sphere(0.5, 2)
    both = (
        np.concatenate([vertices, vertices + np.array([0.3, 0.1, -1.0])]),
        np.concatenate([faces, faces + len(vertices)]),
    )
    size, eye = (24, 24), np.array([0.2, 0.4, 3.0])
    camera, intrinsics = look_at(eye, np.zeros(3)), pinhole((24, 24), np.radians(45))
    face, depth = rasterize(*both, camera, intrinsics, size)
    row, column = (index.ravel() for index in np.indices(size))
    directions = unproject(column + 0.5, row + 0.5, np.ones(size).ravel(), camera, intrinsics) - eye
    a, b, c = (both[0][both[1][:, i]] for i in range(3))
    e1, e2 = b - a, c - a
    p = np.cross(directions[:, None], e2)  # [rays, triangles, 3]
    determinant = (e1 * p).sum(-1)
    u = ((eye - a) * p).sum(-1) / determinant
    q = np.cross(eye - a, e1)
    v = directions @ q.T / determinant
    distance = (e2 * q).sum(-1) / determinant
    met = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0), distance, np.inf)
    expected = np.where(np.isfinite(met.min(1)), met.argmin(1), -1).reshape(size)
    assert (face == expected).mean() > 0.99
    seen = depth > 0
    points = unproject(column + 0.5, row + 0.5, depth.ravel(), camera, intrinsics)[seen.ravel()]
    distance = np.minimum(np.linalg.norm(points, axis=1), np.linalg.norm(points - [0.3, 0.1, -1.0], axis=1))
    assert np.abs(distance - 0.5).max() < 0.02  # of a polyhedron


def test_what_reaches_behind_the_camera_is_cut() -> None:
    """A floor on which the camera stands: half of the picture, at the depth that geometry gives."""
    vertices = np.array([[-50.0, 0, -50], [50, 0, -50], [50, 0, 50], [-50, 0, 50]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    size, intrinsics = (40, 40), pinhole((40, 40), np.radians(90))
    face, depth = rasterize(vertices, faces, look_at(np.array([0, 1.0, 0]), np.array([0, 1.0, -1])), intrinsics, size)
    assert (face[:20] == -1).all()
    rows = np.arange(21, 40)
    assert (face[21:] >= 0).all()
    np.testing.assert_allclose(depth[21:], np.tile((20 / (rows + 0.5 - 20))[:, None], (1, 40)), rtol=1e-6)
    behind = vertices + np.array([0, 0, 60.0])
    assert (rasterize(behind, faces, look_at(np.zeros(3), np.array([0, 0, -1.0])), intrinsics, size)[0] == -1).all()
    assert NEAR < 0.1


def test_a_picture_shows_lamberts_law() -> None:
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces, one = np.array([[0, 1, 2], [0, 2, 3]]), np.ones(2, dtype=np.int64)
    model = Model(vertices, faces, np.full((2, 3), 0.5), 4 * one, 9 * one)
    light = Light(np.array([0.0, 0.0, 3.0]), power=0.6, reach=3.0, up=0.2, down=0.2)
    picture = draw(model, look_at(np.array([0, 0, 2.0]), np.zeros(3)), pinhole((32, 32), 0.5), (32, 32), light)
    linear = 0.5 * (0.2 + 0.6)  # in the middle: facing the lamp at its reach
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(picture.image[15:17, 15:17].astype(float) - expected).max() <= 1
    assert (picture.label == 4).all()
    assert (picture.instance == 9).all()
    np.testing.assert_allclose(picture.depth, 2.0, rtol=1e-6)
    farther = draw(model, look_at(np.array([0, 0, 8.0]), np.zeros(3)), pinhole((32, 32), 0.5), (32, 32), light)
    assert (farther.image[0] == 255).all()
    assert (farther.label[0] == -1).all()
    assert (farther.depth[0] == 0).all()
