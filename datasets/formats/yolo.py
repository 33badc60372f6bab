"""Label files of the YOLO family: one text file an image, one line an object, lengths as shares of the image's sides.

``CLASS CX CY W H`` is a box by its centre and size; ``CLASS X1 Y1 X2 Y2 X3 Y3 ...`` is a polygon. The classes are named
in a ``config.yaml`` that stands beside the labels. An image without objects may have an empty file, or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.text import read_lines, read_text

MAX_LABEL_BYTES = 1 << 24
MAX_CLASSES = 254  # so that a class fits into a mask of bytes, with one value left for what has none
TOLERANCE = 0.01  # of a side: how far written coordinates overshoot


@dataclass(frozen=True)
class YoloLabels:
    boxes: np.ndarray  # float32 [M, 4]: left, top, right, bottom as shares of the sides, in [0, 1]
    label: np.ndarray  # int64 [M], as numbered by ``classes``
    polygons: tuple[np.ndarray, ...]  # M times float64 [K, 2], x and y in [0, 1]; empty for files of boxes


def read_yolo_classes(path: Path, key: str = "names") -> dict[int, str]:
    """Number -> name of each class, from the mapping ``names`` (or the list) of a configuration."""
    try:
        content = yaml.safe_load(read_text(path, 1 << 20))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise DataError(
            f"{path} is not YAML ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None
    names = content.get(key) if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not 0 < len(names) <= MAX_CLASSES:
        raise DataError(f"{path} has no {key!r} with 1 to {MAX_CLASSES} classes; fetch it again")
    for number, name in names.items():
        if type(number) is not int or not 0 <= number < 1 << 31 or not isinstance(name, str):
            raise DataError(f"{path}: an entry of {key!r} is not a number and the name of a class; correct it")
    return dict(sorted(names.items()))


def read_yolo_labels(path: Path, classes: Mapping[int, int]) -> YoloLabels:
    """The objects of one image. ``classes``: the file's number of a class -> its index. An absent file has no objects."""
    boxes, labels, polygons = [], [], []
    for number, line in read_lines(path, MAX_LABEL_BYTES) if path.exists() else []:
        where = f"{path}, line {number}"
        try:
            label, values = int(line.split()[0]), [float(word) for word in line.split()[1:]]
        except ValueError:
            raise DataError(f"{where}: not a class and numbers; correct the line") from None
        if label not in classes:
            raise DataError(f"{where}: class {label} is not one of the {len(classes)} in the configuration")
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise DataError(
                f"{where}: {len(values)} numbers are neither a box (4) nor a polygon (x and y of 3 corners)"
            )
        if not all(math.isfinite(value) for value in values):
            raise DataError(f"{where}: a coordinate is not finite; correct the line")
        corners = np.array(values).reshape(-1, 2)
        if len(values) == 4:
            if (corners[1] < 0).any():
                raise DataError(f"{where}: the box has a negative size; correct the line")
            corners = np.stack([corners[0] - corners[1] / 2, corners[0] + corners[1] / 2])
        else:
            polygons.append(corners.clip(0, 1))
        if corners.min() < -TOLERANCE or corners.max() > 1 + TOLERANCE:
            raise DataError(
                f"{where}: coordinates from {corners.min():.4g} to {corners.max():.4g}; they must be shares, 0 to 1"
            )
        corners = corners.clip(0, 1)
        boxes.append([*corners.min(0), *corners.max(0)])
        labels.append(classes[label])
    if polygons and len(polygons) != len(boxes):
        raise DataError(f"{path} mixes boxes and polygons; keep one kind")
    return YoloLabels(
        np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(labels, dtype=np.int64), tuple(polygons)
    )
