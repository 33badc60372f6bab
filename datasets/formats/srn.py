"""The renderings of Scene Representation Networks (Sitzmann et al. 2019): cars and chairs of ShapeNet, one folder an object.

``intrinsics.txt`` has focal length and principal point in its first line and the picture's size in its last; ``pose/*.txt`` are
camera-to-world matrices, already in OpenCV axes; ``rgb/*.png`` are on white.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, are_rigid, read_text


class Views(NamedTuple):
    images: tuple[Path, ...]  # N, by name
    intrinsics: np.ndarray  # float64 [3, 3], pixels
    world_to_camera: np.ndarray  # float64 [N, 4, 4]
    size: tuple[int, int]  # height, width


def read_views(folder: Path) -> Views:
    path = folder / "intrinsics.txt"
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    try:
        focal, cx, cy = (float(word) for word in lines[0][:3])
        height, width = (int(word) for word in lines[-1])
    except (IndexError, ValueError):
        raise DataError(
            f"{path} is not 'focal cx cy 0' to begin with and 'height width' to end with; {AGAIN}"
        ) from None
    if not (np.isfinite([focal, cx, cy]).all() and focal > 0 and 0 < height <= 100_000 and 0 < width <= 100_000):
        raise DataError(f"{path}: focal length {focal}, centre {cx} {cy}, size {height} {width} are no camera; {AGAIN}")
    images = tuple(sorted((folder / "rgb").glob("*.png")))
    if not images:
        raise DataError(f"{folder}/rgb has no pictures; {AGAIN}")
    poses = np.stack([_pose(folder / "pose" / f"{image.stem}.txt") for image in images])
    intrinsics = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])
    return Views(images, intrinsics, np.linalg.inv(poses), (height, width))


def _pose(path: Path) -> np.ndarray:
    try:
        pose = np.array([float(word) for word in read_text(path).split()]).reshape(4, 4)
    except ValueError:
        raise DataError(f"{path} is no 4x4 matrix; {AGAIN}") from None
    if not are_rigid(pose[None], 1e-3)[0]:
        raise DataError(f"{path} is no rigid motion; {AGAIN}")
    return pose
