"""S3DIS, Stanford 3D Indoor Spaces (Armeni et al. 2016): a room is a folder ``Annotations`` with a text file an object."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, check_finite, read_text, table

CLASSES = (
    *("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board"),
    "clutter",
)
NAME = re.compile(r"([A-Za-z]+)_(\d+)\.txt")


class Room(NamedTuple):
    points: np.ndarray  # float32 [N, 3], metres, z up, the building's frame
    colours: np.ndarray  # uint8 [N, 3]
    labels: np.ndarray  # int64 [N], index into the classes
    instances: np.ndarray  # int64 [N], number of the object file, in the order of names


def read_room(annotations: Path, classes: tuple[str, ...] = CLASSES) -> Room:
    """All objects of ``annotations``. A name that is no class (S3DIS has stairs) counts as clutter, where that is a class."""
    if not annotations.is_dir():
        raise DataError(f"{annotations} is no folder; a room is <Area>/<room>/Annotations/<class>_<number>.txt")
    paths = sorted(path for path in annotations.iterdir() if path.suffix == ".txt")
    if not paths:
        raise DataError(f"{annotations} has no object files <class>_<number>.txt; {AGAIN}")
    values, labels = [], []
    for path in paths:
        name = NAME.fullmatch(path.name)
        if name is None or (name[1] not in classes and "clutter" not in classes):
            raise DataError(
                f"{path} is not named <class>_<number>.txt with one of the classes {', '.join(classes)}; rename it"
            )
        values.append(read_object(path))
        labels.append(classes.index(name[1] if name[1] in classes else "clutter"))
    counts = [len(part) for part in values]
    every = np.concatenate(values)
    return Room(
        every[:, :3].astype(np.float32),
        every[:, 3:].astype(np.uint8),
        np.repeat(np.array(labels, dtype=np.int64), counts),
        np.repeat(np.arange(len(paths), dtype=np.int64), counts),
    )


def read_object(path: Path) -> np.ndarray:
    """float64 [N, 6]: x, y, z, r, g, b of one object file."""
    # the release has a stray control character for a blank in Area_5/hallway_6/Annotations/ceiling_1.txt
    lines = read_text(path).replace("\x10", " ").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty; {AGAIN}")
    values = table(lines, 6, path)
    check_finite(values, "point", path)
    colours = values[:, 3:]
    bad = ((colours < 0) | (colours > 255) | (colours != np.floor(colours))).any(axis=1)
    if bad.any():
        where = int(bad.argmax())
        raise DataError(f"{path}, line {where + 1}: {colours[where].tolist()} is no colour in 0..255; {AGAIN}")
    return values
