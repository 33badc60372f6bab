"""ModelNet as it was passed on in points.

PointNet's ``modelnet40_ply_hdf5_2048``: HDF5 files of 2048 points a shape and lists of these files. PointNet++'s
``modelnet40_normal_resampled``: a text file of 10,000 points with normals for each shape and lists of shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import AdlbenchError, DataError
from adlbench.datasets.formats.files import AGAIN, MAX_EXPANSION, check_finite, check_indices, inside, read_text, table


class Shapes(NamedTuple):
    points: np.ndarray  # float32 [N, P, 3], in the unit sphere, y up
    normals: np.ndarray | None  # float32 [N, P, 3]
    labels: np.ndarray  # int64 [N]


def read_h5(path: Path, num_classes: int) -> Shapes:
    """The data sets ``data``, ``label`` and perhaps ``normal`` of one file."""
    try:
        import h5py
    except ImportError:
        raise AdlbenchError(f"{path} needs h5py to be read; pip install h5py") from None
    if not path.is_file():
        raise DataError(f"{path} does not exist; put it there")
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: _array(file, name, path) for name in ("data", "label", "normal") if name in file}
    except DataError:
        raise
    except Exception as error:  # the HDF5 library reports damage in many ways
        raise DataError(f"{path} is a damaged HDF5 file ({str(error)[:120]}); {AGAIN}") from None
    if not {"data", "label"} <= arrays.keys():
        raise DataError(f"{path} has no data sets 'data' and 'label'; {AGAIN}")
    points, labels = arrays["data"], arrays["label"].reshape(-1)
    if points.ndim != 3 or points.shape[2] != 3 or len(labels) != len(points) or points.dtype.kind != "f":
        raise DataError(f"{path}: data {points.shape} and label {labels.shape} are not [N, P, 3] and [N, 1]; {AGAIN}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: its labels are {labels.dtype}, not whole numbers; {AGAIN}")
    normals = arrays.get("normal")
    if normals is not None and normals.shape != points.shape:
        raise DataError(f"{path}: normal {normals.shape} is not shaped as data {points.shape}; {AGAIN}")
    check_finite(points, "shape", path)
    check_indices(labels, num_classes, "the label of shape", path)
    if normals is not None:
        check_finite(normals, "the normals of shape", path)
        normals = normals.astype(np.float32)
    return Shapes(points.astype(np.float32), normals, labels.astype(np.int64))


def _array(file, name: str, path: Path) -> np.ndarray:  # type: ignore[no-untyped-def]
    found = file[name]
    size = getattr(found, "nbytes", None)
    if size is None or found.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name!r} is no array of numbers; {AGAIN}")
    if size > MAX_EXPANSION * path.stat().st_size:
        raise DataError(f"{path}: {name!r} announces {size:,} bytes, more than its file can hold; {AGAIN}")
    return found[()]


def read_list(path: Path) -> list[Path]:
    """The files that ``train_files.txt`` names (as ``data/modelnet40_ply_hdf5_2048/NAME.h5``), beside the list itself."""
    names = read_text(path).split()
    bad = [name for name in names if not name.endswith(".h5")]
    if not names or bad:
        raise DataError(
            f"{path} names {bad[0][:80]!r} and no .h5 file there; {AGAIN}" if bad else f"{path} names no files; {AGAIN}"
        )
    return [inside(path.parent, name.replace("\\", "/").rsplit("/", 1)[-1], path) for name in names]


def read_resampled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points and unit normals, float32 [N, 3] each, in the unit sphere, y up, from lines ``x,y,z,nx,ny,nz``."""
    lines = read_text(path).replace(",", " ").splitlines()
    if not lines:
        raise DataError(f"{path} is empty; {AGAIN}")
    values = table(lines, 6, path)
    check_finite(values, "point", path)
    return values[:, :3].astype(np.float32), values[:, 3:].astype(np.float32)


def read_resampled_list(path: Path, classes: tuple[str, ...]) -> list[tuple[int, Path]]:
    """(index into ``classes``, file) of each shape ``<class>_<number>`` that ``modelnet40_train.txt`` names."""
    found = []
    for number, name in enumerate(read_text(path).split(), 1):
        kind = name.rsplit("_", 1)[0]
        if kind not in classes:
            raise DataError(
                f"{path}, line {number}: {name[:60]!r} is of no known class; the classes are {', '.join(classes)}"
            )
        found.append((classes.index(kind), inside(path.parent, f"{kind}/{name}.txt", path)))
    if not found:
        raise DataError(f"{path} names no shapes; {AGAIN}")
    return found
