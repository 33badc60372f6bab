"""A triangle mesh as every mesh reader returns it, and the reader for a file's ending."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import check_finite, check_indices


class Mesh(NamedTuple):
    """Units and axes are the file's; nothing is merged, moved or dropped."""

    vertices: np.ndarray  # float64 [V, 3]
    faces: np.ndarray  # int64 [F, 3], indices of vertices


ENDINGS = (".off", ".obj", ".ply", ".glb")


def checked(vertices: np.ndarray, faces: np.ndarray, path: Path) -> Mesh:
    """Raises DataError for vertices that are not finite and faces that name none."""
    vertices = np.ascontiguousarray(vertices, dtype=np.float64).reshape(-1, 3)
    faces = np.ascontiguousarray(faces, dtype=np.int64).reshape(-1, 3)
    if len(vertices) == 0:
        raise DataError(f"{path} has no vertices; give a mesh with at least one face")
    check_finite(vertices, "vertex", path)
    check_indices(faces, len(vertices), "face", path)
    return Mesh(vertices, faces)


def read_mesh(path: Path) -> Mesh:
    """OFF, OBJ, PLY or glb, by the file's ending."""
    from adlbench.datasets.formats import glb, obj, off, ply

    readers = {".off": off.read_off, ".obj": obj.read_obj, ".ply": ply.read_mesh, ".glb": glb.read_glb}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is no mesh that is read here; convert it to one of {', '.join(ENDINGS)}")
    return reader(path)


def fan(polygons: list[list[int]]) -> np.ndarray:
    """Triangles [F, 3] of polygons, each split into a fan around its first corner; fewer than three corners give none."""
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def sample_surface(mesh: Mesh, count: int, seed: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``count`` points [N, 3], uniform over the area, and the unit normals [N, 3] of the triangles they lie on (float32).

    The sense of a normal is that of its triangle's corners, which many published meshes do not keep outward.
    """
    corners = mesh.vertices[mesh.faces]  # [F, 3, 3]
    edges = corners[:, 1:] - corners[:, :1]
    normal = np.cross(edges[:, 0], edges[:, 1])
    double_area = np.linalg.norm(normal, axis=1)
    total = double_area.cumsum()
    if len(total) == 0 or not total[-1] > 0 or not np.isfinite(total[-1]):
        raise DataError(f"{path} has no area to sample points from; give a mesh with faces")
    generator = np.random.default_rng(seed)
    face = np.searchsorted(total, generator.random(count) * total[-1], side="right").clip(max=len(total) - 1)
    where = generator.random((count, 2))
    where = np.where(where.sum(1, keepdims=True) > 1, 1 - where, where)  # folded into the triangle
    points = corners[face, 0] + (where[:, :, None] * edges[face]).sum(1)
    unit = normal[face] / np.maximum(double_area[face], 1e-300)[:, None]
    return points.astype(np.float32), unit.astype(np.float32)
