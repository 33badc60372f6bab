"""Parts of registered meshes by vertex number: SMPL's ``smpl_vert_segmentation.json``, which fits FAUST's registrations."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, check_indices, read_json


class BodyParts(NamedTuple):
    names: tuple[str, ...]  # K, in alphabetical order
    members: np.ndarray  # bool [V, K]; a few vertices on a seam belong to two or three parts

    @property
    def labels(self) -> np.ndarray:
        """int64 [V]: the first of a vertex's parts."""
        return self.members.argmax(axis=1)


def read_body_parts(path: Path, num_vertices: int = 6890) -> BodyParts:
    """Raises DataError for vertices that do not exist or belong to no part."""
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} is no mapping from parts to vertices; {AGAIN}")
    names = tuple(sorted(content))
    members = np.zeros((num_vertices, len(names)), dtype=bool)
    for column, name in enumerate(names):
        vertices = content[name]
        if not isinstance(vertices, list) or not all(type(vertex) is int for vertex in vertices):
            raise DataError(f"{path}: part {name[:40]!r} is no list of whole numbers; {AGAIN}")
        numbers = np.array([min(max(vertex, -1), num_vertices) for vertex in vertices], dtype=np.int64)
        check_indices(numbers, num_vertices, f"part {name[:40]!r}, entry", path)
        members[numbers, column] = True
    if not members.any(axis=1).all():
        raise DataError(f"{path}: vertex {int((~members.any(axis=1)).argmax())} belongs to no part; {AGAIN}")
    return BodyParts(names, members)
