"""Objaverse 1.0 (Deitke et al. 2023) as the package ``objaverse`` keeps it: glb files, their paths, annotations, LVIS classes.

Objaverse-XL's index is a table of addresses; what it leads to are files of many formats, of which glb is read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, inside, named, read_json


@dataclass(frozen=True)
class Objects:
    paths: dict[str, Path]  # uid -> glb, those that are there, by uid
    classes: dict[str, str]  # uid -> LVIS class, where it has one


def read_objects(root: Path) -> Objects:
    """``object-paths.json.gz`` and, if it is there, ``lvis-annotations.json.gz`` below ``root``; objects not downloaded are left out."""
    index = root / "object-paths.json.gz"
    names = read_json(index)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{index} is no mapping from identifiers to paths; {AGAIN}")
    listed = ((uid, name, named(root, name, index)) for uid, name in sorted(names.items()))
    paths = {uid: inside(root, name, index) for uid, name, path in listed if path.is_file()}
    lvis = root / "lvis-annotations.json.gz"
    classes: dict[str, str] = {}
    if lvis.is_file():
        content = read_json(lvis)
        if not isinstance(content, dict) or not all(isinstance(uids, list) for uids in content.values()):
            raise DataError(f"{lvis} is no mapping from classes to lists of identifiers; {AGAIN}")
        classes = {str(uid): name for name, uids in sorted(content.items()) for uid in uids}
    return Objects(paths, classes)


def read_annotations(path: Path) -> dict[str, dict[str, Any]]:
    """One shard ``metadata/000-000.json.gz``: uid -> name, licence, tags, categories and more, as Sketchfab gives them."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise DataError(f"{path} is no mapping from identifiers to annotations; {AGAIN}")
    return content
