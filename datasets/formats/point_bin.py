"""Point clouds as bare little-endian numbers: KITTI's velodyne files and the ``.bin`` of mmdetection3d."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, check_finite, read_bytes


def read_points(path: Path, columns: int) -> np.ndarray:
    """float32 [N, columns]. KITTI: x, y, z in metres (x forward, y left, z up) and remission in [0, 1].

    mmdetection3d's indoor scenes: x, y, z in metres (z up) and r, g, b in 0..255, or without colours 3 columns.
    Nothing in the file says how many columns there are; values that are no plausible coordinates are refused.
    """
    content = read_bytes(path)
    if not content or len(content) % (4 * columns):
        raise DataError(
            f"{path} has {len(content):,} bytes, which is no whole number of points of {columns} float32; {AGAIN}"
        )
    points = np.frombuffer(content, "<f4").reshape(-1, columns)
    check_finite(points, "point", path)
    far = np.abs(points).max(axis=1) > 1e6
    tiny = ((points != 0) & (np.abs(points) < 1e-30)).any(axis=1)
    if far.any() or tiny.any():
        where = int((far | tiny).argmax())
        raise DataError(
            f"{path}: point {where} is {points[where].tolist()}, which is no position in metres; the byte order or the number "
            f"of columns ({columns}) is wrong, or {AGAIN}"
        )
    return points


def read_labels(path: Path, dtype: str = "<i8") -> np.ndarray:
    """[N] of one little-endian integer a point (mmdetection3d's semantic and instance masks: int64)."""
    content = read_bytes(path)
    kind = np.dtype(dtype)
    if not content or len(content) % kind.itemsize:
        raise DataError(f"{path} has {len(content):,} bytes, which is no whole number of {kind}; {AGAIN}")
    return np.frombuffer(content, kind)
