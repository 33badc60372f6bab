"""PLY, the Stanford polygon format: ascii, little and big endian, read by plyfile; what a header announces is checked here."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, read_bytes
from adlbench.datasets.formats.meshes import Mesh, checked, fan

END = rb"end_header[ \t]*\r?\n"
SIZES = {"char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "float": 4, "double": 8}
SIZES |= {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4, "float64": 8}


def read_ply(path: Path) -> dict[str, dict[str, Any]]:
    """Every element as a mapping from its properties to arrays [N] in native byte order; lists become lists of arrays.

    Raises DataError for a header that is none, or that announces more than the file holds.
    """
    from plyfile import PlyData, PlyListProperty

    content = read_bytes(path)
    listed = _check_header(content, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = _read(PlyData, content, listed)
    except Exception as error:  # plyfile lets through whatever numpy raises on damaged bytes
        raise DataError(f"{path} is a damaged PLY file ({type(error).__name__}: {str(error)[:120]}); {AGAIN}") from None
    elements: dict[str, dict[str, Any]] = {}
    for element in data.elements:
        fields = elements[element.name] = {}
        for item in element.properties:
            values = element.data[item.name]
            if isinstance(item, PlyListProperty):
                fields[item.name] = list(values)
            else:
                fields[item.name] = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    return elements


def read_mesh(path: Path) -> Mesh:
    """Vertices and faces; a point cloud has no faces. Polygons are split into fans."""
    return mesh_of(read_ply(path), path)


def mesh_of(elements: dict[str, dict[str, Any]], path: Path) -> Mesh:
    vertices = np.column_stack(columns(elements, "vertex", ("x", "y", "z"), path))
    corners = elements.get("face", {})
    lists = corners.get("vertex_indices", corners.get("vertex_index", []))
    if any(np.ndim(polygon) != 1 or np.asarray(polygon).dtype.kind not in "iu" for polygon in lists):
        raise DataError(f"{path}: the corners of its faces must be lists of whole numbers; {AGAIN}")
    short = [index for index, polygon in enumerate(lists) if len(polygon) < 3]
    if short:
        raise DataError(f"{path}: face {short[0]} has {len(lists[short[0]])} corners; {AGAIN}")
    if lists and {len(polygon) for polygon in lists} == {3}:
        faces = np.array(lists, dtype=np.int64)
    else:
        faces = fan([polygon.astype(np.int64).tolist() for polygon in lists])
    return checked(vertices, faces, path)


def columns(elements: dict[str, dict[str, Any]], element: str, names: tuple[str, ...], path: Path) -> list[np.ndarray]:
    """The plain properties ``names`` of an element, [N] each. Raises DataError when one is absent."""
    found = elements.get(element, {})
    missing = [name for name in names if not isinstance(found.get(name), np.ndarray)]
    if missing:
        raise DataError(
            f"{path}: its element {element!r} lacks {', '.join(missing)}; it has {', '.join(found) or 'nothing'}"
        )
    return [found[name] for name in names]


def _read(reader: Any, content: bytes, listed: dict[str, dict[str, int]]) -> Any:
    data, stream = None, io.BytesIO(content)
    if listed:  # lists of three throughout, as nearly all meshes have, are read at once
        try:
            data = reader.read(stream, known_list_len=listed)
        except Exception:
            stream = io.BytesIO(content)  # they differ in length
    if data is None:
        data = reader.read(stream)
    if data.text:
        rows = content[re.search(END, content).end() :].split(b"\n")  # type: ignore[union-attr]
        left = sum(bool(row.strip()) for row in rows) - sum(map(len, data.elements))
    else:
        left = len(stream.read())
    if left:
        raise ValueError("its header announces less than what follows")
    return data


def _check_header(content: bytes, path: Path) -> dict[str, dict[str, int]]:
    """Compares the counts with the bytes that follow. Returns the lists that are worth reading as triangles."""
    end = re.search(END, content)
    if not re.match(rb"ply[ \t]*\r?\n", content) or end is None:
        raise DataError(f"{path} does not begin with a PLY header; it is cut off or of another format: {AGAIN}")
    binary = b"format binary" in content[: end.start()]
    needed, smallest, count = 0, 0, 0
    listed: dict[str, dict[str, int]] = {}
    element = ""
    for line in content[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        try:
            if words[:1] == ["element"]:
                needed += count * smallest
                element, count, smallest = words[1], int(words[2]), 0
                if count < 0:
                    raise ValueError("negative")
            elif words[:2] == ["property", "list"]:
                smallest += SIZES[words[2]] if binary else 2
                if binary and words[4] in {"vertex_indices", "vertex_index"}:
                    listed.setdefault(element, {})[words[4]] = 3
            elif words[:1] == ["property"]:
                smallest += SIZES[words[1]] if binary else 2
        except (ValueError, IndexError, KeyError):
            raise DataError(f"{path}: {line[:60]!r} in its header is no element or property; {AGAIN}") from None
    needed += count * smallest
    left = len(content) - end.end()
    if needed > left + 1:  # an ascii file may lack its last newline
        raise DataError(f"{path}: its header announces {needed:,} bytes or more and {left:,} follow; {AGAIN}")
    return listed
