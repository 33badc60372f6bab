"""Pictures of surfaces, for people: shaded clouds of surface points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.metrics.geometry import sample_mesh
from adlbench.benchmark.tasks.point_pictures import Picture, draw_points

TRUTH, RECONSTRUCTED = (180, 180, 180), (90, 150, 210)
LIGHT = np.array([0.35, 0.80, 0.50])  # towards the light: from above, in front of the viewer's left shoulder
Mesh = tuple[NDArray[np.float32], NDArray[np.int32]]  # vertices [V, 3], faces [F, 3]


def draw_surface(points: NDArray, normals: NDArray, colour: tuple[int, int, int], size: int = 160) -> Picture:
    """uint8 [size, size, 3]: surface points [P, 3] in one ``colour``, shaded by their outward normals [P, 3]."""
    cosine = normals @ (LIGHT / np.linalg.norm(LIGHT))
    brightness = 0.45 + 0.55 * np.clip(0.5 + 0.5 * cosine, 0, 1) ** 1.5  # wraps around: no side is black
    return draw_points(points, np.round(np.array(colour) * brightness[:, None]).astype(np.uint8), size)


def draw_mesh(mesh: Mesh, colour: tuple[int, int, int], size: int = 160, samples: int = 20000) -> Picture:
    vertices, faces = mesh
    if len(faces) == 0:
        return np.full((size, size, 3), 255, dtype=np.uint8)
    points, normals = sample_mesh(vertices, faces, samples, np.random.default_rng(0))
    return draw_surface(points, normals, colour, size)


def compare_shapes(truth: Sequence[tuple[NDArray, NDArray]], meshes: Sequence[Mesh], size: int = 160) -> Picture:
    """A column for each shape: the true surface (points and normals) above its reconstruction."""
    columns = []
    for (points, normals), mesh in zip(truth, meshes, strict=True):
        pair = [draw_surface(points, normals, TRUTH, size), draw_mesh(mesh, RECONSTRUCTED, size)]
        columns.append(np.concatenate(pair))
    return np.concatenate(columns, axis=1)
