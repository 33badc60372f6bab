"""binvox (Patrick Min), run-length coded occupancy grids, and the .npy.gz arrays of grids that collections are passed on as."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, read_bytes, read_npy

HEADER = re.compile(rb"#binvox 1\s*\n((?:(?:dim|translate|scale)[^\n]*\n)*)data\r?\n")


@dataclass(frozen=True)
class VoxelGrid:
    """Voxel [x, y, z] holds the positions ``translate + scale * ((x, y, z) + [0, 1)^3) / dim`` of the model's own frame."""

    occupied: np.ndarray  # bool [X, Y, Z]
    translate: tuple[float, float, float]
    scale: float  # the model's units along the grid's longest side


def read_binvox(path: Path) -> VoxelGrid:
    content = read_bytes(path)
    header = HEADER.match(content)
    if header is None:
        raise DataError(f"{path} does not begin with a binvox header but with {content[:16]!r}; {AGAIN}")
    entries = {line.split()[0]: line.split()[1:] for line in header[1].decode("latin-1").splitlines()}
    try:
        x, z, y = (int(word) for word in entries["dim"])  # the file's order is x, z, y: "dim depth height width"
        tx, ty, tz = (float(word) for word in entries.get("translate", ["0", "0", "0"]))
        (scale,) = (float(word) for word in entries.get("scale", ["1"]))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: dim, translate or scale in its header is wrong ({error}); {AGAIN}") from None
    if min(x, y, z) < 1 or not np.isfinite([tx, ty, tz, scale]).all() or scale <= 0:
        raise DataError(f"{path}: dim {x} {z} {y}, translate {tx} {ty} {tz}, scale {scale} are no grid; {AGAIN}")
    data = np.frombuffer(content, np.uint8, offset=header.end())
    if len(data) % 2:
        raise DataError(f"{path} ends within a run, at byte {len(content)}; {AGAIN}")
    values, runs = data[::2], data[1::2]
    if (values > 1).any():
        raise DataError(
            f"{path}, byte {header.end() + 2 * int((values > 1).argmax())}: a value that is neither 0 nor 1; {AGAIN}"
        )
    total = int(runs.sum(dtype=np.int64))
    if total != x * y * z:
        raise DataError(f"{path}: its runs hold {total:,} voxels and {x}x{y}x{z} are {x * y * z:,}; {AGAIN}")
    occupied = np.repeat(values.astype(bool), runs).reshape(x, z, y).transpose(0, 2, 1)
    return VoxelGrid(np.ascontiguousarray(occupied), (tx, ty, tz), scale)


def read_voxel_array(path: Path) -> np.ndarray:
    """bool [N, D, D, D] from a .npy or .npy.gz of 0 and 1, shaped [N, D, D, D] or [N, 1, D, D, D]."""
    array = read_npy(read_bytes(path), path)
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 4 or len(set(array.shape[1:])) != 1 or array.dtype.kind not in "biuf":
        raise DataError(f"{path} has shape {array.shape} of {array.dtype}; it must hold grids [N, D, D, D] of 0 and 1")
    occupied = array == 1
    if not (occupied | (array == 0)).all():
        raise DataError(f"{path} holds values that are neither 0 nor 1; give it occupancy grids")
    return occupied
