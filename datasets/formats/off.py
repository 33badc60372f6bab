"""OFF, the Object File Format of Geomview, as ModelNet and many mesh collections use it.

A keyword, three counts, a line a vertex, a line a face. Many files of ModelNet glue the counts to the keyword
(``OFF123 456 0``). trimesh reads it too, but takes a file that ends within its faces for a smaller mesh.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, read_text, table
from adlbench.datasets.formats.meshes import Mesh, checked, fan

HEADER = re.compile(r"\s*(?:C|N|CN)?OFF\s*(-?\d+)\s+(-?\d+)(?:[ \t]+-?\d+)?[ \t]*\r?\n")
MOST = 2**40  # far beyond any file, and within int64
VERTEX_COLUMNS = (3, 6, 7, 9, 10)  # position, then perhaps a normal, a colour, or both


def read_off(path: Path) -> Mesh:
    """Vertices in the file's units and axes; polygons are split into fans. Colours and normals are passed over."""
    text = read_text(path)
    if "#" in text:
        text = re.sub(r"#[^\n]*", "", text)
    header = HEADER.match(text)
    if header is None:
        raise DataError(f"{path} does not begin with OFF and its counts, but with {text[:40]!r}; {AGAIN}")
    vertices, faces = int(header[1]), int(header[2])
    lines = [line for line in text[header.end() :].splitlines() if line.strip()]
    if vertices < 0 or faces < 0 or vertices + faces != len(lines):
        raise DataError(
            f"{path} announces {vertices:,} vertices and {faces:,} faces and has {len(lines):,} lines after its header; {AGAIN}"
        )
    first = len(text[: header.end()].splitlines()) + 1
    positions = table(lines[:vertices], VERTEX_COLUMNS, path, first)[:, :3]
    return checked(positions, _faces(lines[vertices:], path, first + vertices), path)


def _faces(lines: list[str], path: Path, first: int) -> np.ndarray:
    if lines and all(line.split(maxsplit=1)[0] == "3" for line in lines):
        rows = {len(line.split()) for line in lines}
        if rows == {4}:
            triangles = table(lines, 4, path, first)[:, 1:]
            if (triangles == np.floor(triangles)).all() and (np.abs(triangles) < MOST).all():
                return triangles
    polygons = []
    for number, line in enumerate(lines, first):
        try:
            count, *corners = line.split()
            polygon = [int(corner) for corner in corners[: int(count)]]
            if not len(polygon) == int(count) >= 1 or max(map(abs, polygon)) > MOST:
                raise ValueError(f"it announces {count} corners and has {len(polygon)}, or they are no indices")
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {line[:60]!r} is no face ({error}); {AGAIN}") from None
        polygons.append(polygon)
    return fan(polygons)
