"""``*_par.txt`` of the Middlebury multi-view stereo sets (Seitz et al. 2006): name, K, R and t of each picture.

A point X of the world is seen at K (R X + t), in pixels from the top left of the picture: this project's convention.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, are_rotations, check_finite, inside, read_text, table


class Views(NamedTuple):
    images: tuple[Path, ...]  # N
    intrinsics: np.ndarray  # float64 [N, 3, 3], pixels
    world_to_camera: np.ndarray  # float64 [N, 4, 4], metres


def read_par(path: Path) -> Views:
    lines = read_text(path).splitlines()
    try:
        count = int(lines[0])
    except (IndexError, ValueError):
        raise DataError(f"{path}, line 1 must be the number of pictures; {AGAIN}") from None
    rows = [line.split(maxsplit=1) for line in lines[1:] if line.strip()]
    if count != len(rows) or count < 1 or any(len(row) != 2 for row in rows):
        raise DataError(f"{path} announces {count} pictures and has {len(rows)} lines; {AGAIN}")
    values = table([row[1] for row in rows], 21, path, 2)
    check_finite(values, "picture", path)
    intrinsics, rotation = values[:, :9].reshape(-1, 3, 3), values[:, 9:18].reshape(-1, 3, 3)
    bad = ~are_rotations(rotation, 1e-3) | (intrinsics[:, [0, 1], [0, 1]] <= 0).any(axis=1)
    bad |= np.abs(intrinsics[:, 2] - [0, 0, 1]).max(axis=1) > 1e-9
    if bad.any():
        raise DataError(f"{path}, line {int(bad.argmax()) + 2}: K or R is no calibration; {AGAIN}")
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, :3, :3], pose[:, :3, 3] = rotation, values[:, 18:]
    return Views(tuple(inside(path.parent, row[0], path) for row in rows), intrinsics, pose)
