"""Wavefront OBJ: the positions and the faces. Materials, groups and texture coordinates are passed over.

trimesh reads it too, but follows the names of material files, moves vertices to make texture coordinates unique, and takes
an index that names no vertex from the other end of the list.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, read_bytes, table
from adlbench.datasets.formats.meshes import Mesh, checked, fan


def read_obj(path: Path) -> Mesh:
    """Vertices in the file's order, units and axes; polygons are split into fans; negative (relative) indices are resolved."""
    text = read_bytes(path).decode("latin-1")  # names may be in any encoding; numbers are ASCII
    if "\0" in text:
        raise DataError(f"{path} is not text: byte {text.index(chr(0))} is zero; {AGAIN}")
    if "\\\n" in text:
        text = text.replace("\\\n", " ")
    positions: list[str] = []
    numbers: list[int] = []  # the lines they stand on
    polygons: list[list[int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("v "):
            positions.append(line[2:])
            numbers.append(number)
        elif line.startswith("f "):
            polygons.append(_corners(line, len(positions), path, number))
    if not positions:
        raise DataError(f"{path} has no line 'v x y z'; it is empty or no OBJ: {AGAIN}")
    widths = {len(line.split()) for line in positions}
    # with a weight or with a colour; mixed files have both kinds of lines, and only the position matters
    if len(widths) > 1 and widths <= {3, 4, 6, 7}:
        positions = [" ".join(line.split()[:3]) for line in positions]
    consecutive = numbers[-1] - numbers[0] == len(numbers) - 1
    vertices = table(positions, (3, 4, 6, 7), path, numbers[0] if consecutive else 1)[:, :3]
    return checked(vertices, fan(polygons) if polygons else np.empty((0, 3), np.int64), path)


MOST = 2**40  # far beyond any file, and within int64


def _corners(line: str, known: int, path: Path, number: int) -> list[int]:
    try:
        corners = [int(word.split("/", 1)[0]) for word in line.split("#", 1)[0].split()[1:]]
    except ValueError:
        raise DataError(f"{path}, line {number}: {line[:60]!r} is no face; {AGAIN}") from None
    if len(corners) < 3 or 0 in corners or min(corners) < -known or max(corners) > MOST:
        raise DataError(f"{path}, line {number}: {line[:60]!r} needs three corners or more, counted from 1; {AGAIN}")
    return [corner - 1 if corner > 0 else known + corner for corner in corners]
