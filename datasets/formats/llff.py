"""``poses_bounds.npy`` of LLFF (Mildenhall et al. 2019): a pose, a size, a focal length and two depths for each photograph.

A row is a 3x5 matrix [camera to world | height, width, focal length], whose camera axes are down, right, backwards, and the
near and far depth. What leaves is world to camera in OpenCV axes (right, down, forward).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, are_rotations, check_finite, read_bytes, read_npy


class PosesBounds(NamedTuple):
    world_to_camera: np.ndarray  # float64 [N, 4, 4], in the order of the photographs' names
    height: int  # pixels of the photographs that were calibrated
    width: int
    focal: np.ndarray  # float64 [N], pixels of that size
    bounds: np.ndarray  # float64 [N, 2], depth of the nearest and farthest point, world units


def read_poses_bounds(path: Path) -> PosesBounds:
    rows = read_npy(read_bytes(path), path)
    if rows.ndim != 2 or rows.shape[1] != 17 or len(rows) == 0 or rows.dtype.kind != "f":
        raise DataError(f"{path} has shape {rows.shape} of {rows.dtype}, not [N, 17] of floats; {AGAIN}")
    rows = rows.astype(np.float64)
    check_finite(rows, "row", path)
    matrices = rows[:, :15].reshape(-1, 3, 5)
    height, width, focal = matrices[:, 0, 4], matrices[:, 1, 4], matrices[:, 2, 4]
    bounds = rows[:, 15:]
    sizes = np.unique(np.stack([height, width], 1), axis=0)
    if len(sizes) != 1 or not sizes.min() >= 1 or sizes.max() > 100_000 or (sizes != np.round(sizes)).any():
        raise DataError(
            f"{path}: heights and widths are {sizes[:3].tolist()}; all photographs must have one size in pixels"
        )
    if (focal <= 0).any() or (bounds[:, 0] <= 0).any() or (bounds[:, 1] <= bounds[:, 0]).any():
        raise DataError(f"{path}: focal lengths must be positive, and near depths positive and below far ones; {AGAIN}")
    down, right, back = matrices[:, :, 0], matrices[:, :, 1], matrices[:, :, 2]
    rotation = np.stack([right, down, -back], axis=2)
    bad = ~are_rotations(rotation, 1e-2)
    if bad.any():
        raise DataError(f"{path}: row {int(bad.argmax())} holds no rotation; {AGAIN}")
    pose = np.tile(np.eye(4), (len(rows), 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation, matrices[:, :, 3]
    return PosesBounds(np.linalg.inv(pose), int(sizes[0, 0]), int(sizes[0, 1]), focal, bounds)
