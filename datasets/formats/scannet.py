"""ScanNet v2 (Dai et al. 2017): a scene's decimated mesh ``*_vh_clean_2.ply`` and its labels ``*_vh_clean_2.labels.ply``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, check_indices, read_text
from adlbench.datasets.formats.ply import columns, mesh_of, read_ply

# The benchmark's 20 classes by their nyu40 number (ScanNet/BenchmarkScripts); every other number is not scored.
NYU40 = {
    **{1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window"},
    **{
        10: "bookshelf",
        11: "picture",
        12: "counter",
        14: "desk",
        16: "curtain",
        24: "refrigerator",
        28: "shower curtain",
    },
    **{33: "toilet", 34: "sink", 36: "bathtub", 39: "other furniture"},
}
CLASSES = tuple(NYU40.values())


class Scene(NamedTuple):
    vertices: np.ndarray  # float64 [V, 3], metres, z up
    faces: np.ndarray  # int64 [F, 3]
    colours: np.ndarray  # uint8 [V, 3]
    labels: np.ndarray | None  # int64 [V], index into CLASSES, -1 where it is not scored; None without a labels file


def read_scene(mesh: Path, labels: Path | None) -> Scene:
    """Raises DataError when the two do not belong together or a label is no nyu40 number."""
    elements = read_ply(mesh)
    vertices, faces = mesh_of(elements, mesh)
    colours = np.column_stack(columns(elements, "vertex", ("red", "green", "blue"), mesh))
    if colours.dtype != np.uint8:
        raise DataError(f"{mesh}: its colours are {colours.dtype}, not uint8; {AGAIN}")
    return Scene(vertices, faces, colours, None if labels is None else _labels(labels, len(vertices)))


def _labels(path: Path, count: int) -> np.ndarray:
    (raw,) = columns(read_ply(path), "vertex", ("label",), path)
    if len(raw) != count or raw.dtype.kind not in "iu":
        raise DataError(f"{path} has {len(raw):,} labels ({raw.dtype}) and its mesh {count:,} vertices; {AGAIN}")
    check_indices(raw, 41, "the nyu40 label of vertex", path)
    table = np.full(41, -1, dtype=np.int64)
    table[list(NYU40)] = np.arange(len(NYU40))
    return table[raw]


def read_split(path: Path) -> list[str]:
    """Scene names of ``scannetv2_train.txt`` or ``_val.txt``."""
    names = read_text(path).split()
    bad = [name for name in names if not re.fullmatch(r"scene\d{4}_\d{2}", name)]
    if bad or not names:
        raise DataError(f"{path} is no list of scenes; it has {bad[0][:40] if bad else 'nothing'!r}: {AGAIN}")
    return names
