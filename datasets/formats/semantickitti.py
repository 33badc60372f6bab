"""SemanticKITTI (Behley et al. 2019): a velodyne scan and a label for each of its points.

The label map is that of ``semantic-kitti.yaml`` in the authors' repository (PRBonn/semantic-kitti-api).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN
from adlbench.datasets.formats.point_bin import read_labels, read_points

CLASSES = (
    *(
        "car",
        "bicycle",
        "motorcycle",
        "truck",
        "other-vehicle",
        "person",
        "bicyclist",
        "motorcyclist",
        "road",
        "parking",
    ),
    *("sidewalk", "other-ground", "building", "fence", "vegetation", "trunk", "terrain", "pole", "traffic-sign"),
)
# Raw class -> 1 + index into CLASSES; 0 is not scored. Moving things count as the standing ones.
LEARNING_MAP = {
    **{0: 0, 1: 0, 10: 1, 11: 2, 13: 5, 15: 3, 16: 5, 18: 4, 20: 5, 30: 6, 31: 7, 32: 8, 40: 9, 44: 10, 48: 11, 49: 12},
    **{50: 13, 51: 14, 52: 0, 60: 9, 70: 15, 71: 16, 72: 17, 80: 18, 81: 19, 99: 0},
    **{252: 1, 253: 7, 254: 6, 255: 8, 256: 5, 257: 5, 258: 4, 259: 5},
}
TRAIN = ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")
VALIDATION = ("08",)  # the labels of 11 to 21 are not public


class Scan(NamedTuple):
    points: np.ndarray  # float32 [N, 3], metres: x forward, y left, z up, from the sensor
    remission: np.ndarray  # float32 [N], [0, 1]
    labels: np.ndarray  # int64 [N], index into CLASSES, -1 where it is not scored
    instances: np.ndarray  # int64 [N], 0 for none


def read_scan(velodyne: Path, labels: Path) -> Scan:
    """Raises DataError when the files do not belong together or a class is not in the label map."""
    points = read_points(velodyne, 4)
    raw = read_labels(labels, "<u4")
    if len(raw) != len(points):
        raise DataError(f"{labels} has {len(raw):,} labels and {velodyne} {len(points):,} points; {AGAIN}")
    semantic = (raw & 0xFFFF).astype(np.int64)
    table = np.full(0x10000, -2, dtype=np.int64)
    table[list(LEARNING_MAP)] = np.array(list(LEARNING_MAP.values())) - 1
    mapped = table[semantic]
    if not (semantic > 1).any() and (raw >> 16).any():
        raise DataError(f"{labels}: objects are numbered and none has a class; its byte order is wrong, or {AGAIN}")
    if (mapped == -2).any():
        where = int((mapped == -2).argmax())
        raise DataError(
            f"{labels}: point {where} is of class {semantic[where]}, which SemanticKITTI does not have; {AGAIN}"
        )
    return Scan(points[:, :3], points[:, 3], mapped, (raw >> 16).astype(np.int64))
