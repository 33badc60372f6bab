"""Exhibits of a cell on disk: ``exhibits/index.json`` and one archive of arrays for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adlbench.benchmark.records import read_arrays, write_arrays, write_json

if TYPE_CHECKING:
    from adlbench.benchmark.tasks.base import Exhibit

FOLDER = "exhibits"


def write_exhibits(folder: Path, exhibits: Mapping[str, Exhibit]) -> None:
    """Adds to those that are there; one of the same title is replaced."""
    if not exhibits:
        return
    target = folder / FOLDER
    target.mkdir(exist_ok=True)
    index = [entry for entry in read_index(folder) if entry["title"] not in exhibits]
    taken = {entry["file"] for entry in index}
    for title, exhibit in exhibits.items():
        slug = "".join(c if c.isascii() and c.isalnum() else "_" for c in title)[:60] or "exhibit"
        name = next(n for k in range(len(taken) + 1) if (n := f"{slug}{k or ''}.npz") not in taken)
        taken.add(name)
        write_arrays(target / name, exhibit.arrays)
        index.append({"title": title, "kind": exhibit.kind, "file": name, "meta": exhibit.meta})
    write_json(target / "index.json", index)


def read_index(folder: Path) -> list[dict[str, Any]]:
    path = folder / FOLDER / "index.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def read_exhibits(folder: Path) -> Iterator[tuple[str, str, dict[str, Any], dict[str, np.ndarray]]]:
    """(title, kind, meta, arrays). What cannot be read, or lies elsewhere, is left out: a page shows what there is."""
    for entry in read_index(folder):
        path = folder / FOLDER / Path(entry["file"]).name
        try:
            yield str(entry["title"]), str(entry["kind"]), dict(entry["meta"]), read_arrays(path)
        except (OSError, ValueError, KeyError):
            continue
