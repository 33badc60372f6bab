"""ShapeNet-part (Yi et al. 2016) as PointNet++ passed it on: ``x y z nx ny nz part`` in text, one file a shape."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, check_finite, check_indices, read_json, read_text, table

# Category -> how many of the 50 parts are its own; the numbers run on in this order.
PARTS_OF = {
    **{"Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2, "Lamp": 4},
    **{"Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3},
}
SYNSETS = {
    **{"Airplane": "02691156", "Bag": "02773838", "Cap": "02954340", "Car": "02958343", "Chair": "03001627"},
    **{"Earphone": "03261776", "Guitar": "03467517", "Knife": "03624134", "Lamp": "03636649", "Laptop": "03642806"},
    **{
        "Motorbike": "03790512",
        "Mug": "03797390",
        "Pistol": "03948459",
        "Rocket": "04099429",
        "Skateboard": "04225987",
    },
    **{"Table": "04379243"},
}
CATEGORIES = tuple(PARTS_OF)
PARTS = tuple(f"{name} {index}" for name, count in PARTS_OF.items() for index in range(count))


class PartCloud(NamedTuple):
    points: np.ndarray  # float32 [N, 3], in the unit sphere, y up
    normals: np.ndarray  # float32 [N, 3]
    parts: np.ndarray  # int64 [N], index into PARTS


def parts_of(category: str) -> range:
    """The numbers of a category's parts."""
    first = sum(count for name, count in PARTS_OF.items() if CATEGORIES.index(name) < CATEGORIES.index(category))
    return range(first, first + PARTS_OF[category])


def read_part_cloud(path: Path) -> PartCloud:
    lines = read_text(path).splitlines()
    if not lines:
        raise DataError(f"{path} is empty; {AGAIN}")
    values = table(lines, 7, path)
    check_finite(values, "point", path)
    check_indices(values[:, 6], len(PARTS), "the part of point", path)
    parts = values[:, 6].astype(np.int64)
    if (parts != values[:, 6]).any():
        raise DataError(f"{path}: part {values[(parts != values[:, 6]).argmax(), 6]} is no whole number; {AGAIN}")
    return PartCloud(values[:, :3].astype(np.float32), values[:, 3:6].astype(np.float32), parts)


def read_split(path: Path) -> list[tuple[str, str]]:
    """(synset, shape) of each entry ``shape_data/<synset>/<shape>`` of a ``shuffled_*_file_list.json``."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} is no list of shapes; {AGAIN}")
    found = []
    for number, entry in enumerate(entries):
        words = entry.split("/") if isinstance(entry, str) else []
        if len(words) != 3 or words[1] not in SYNSETS.values() or words[2] in {"", ".", ".."}:
            raise DataError(f"{path}: entry {number}, {str(entry)[:80]!r}, is not shape_data/<synset>/<shape>; {AGAIN}")
        found.append((words[1], words[2]))
    return found
