"""ShapeNetCore (Chang et al. 2015): where versions 1 and 2 keep a model, and the lists that split them.

Models are OBJ, aligned with y up and the front towards -z. Version 2 is normalised to a unit diagonal of the bounding box.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, inside, read_json, read_text

SPLITS = ("train", "val", "test")
Shape = tuple[str, str]  # synset, model


def model_path(root: Path, shape: Shape, source: Path) -> Path:
    """``root/<synset>/<model>/model.obj`` of version 1 or ``.../models/model_normalized.obj`` of version 2."""
    folder = inside(root, "/".join(shape), source)
    second = folder / "models" / "model_normalized.obj"
    return second if second.is_file() else folder / "model.obj"


def read_split_csv(path: Path) -> dict[str, list[Shape]]:
    """``all.csv`` of SHREC 2016, the official split of ShapeNetCore: id, synsetId, subSynsetId, modelId, split."""
    found: dict[str, list[Shape]] = {split: [] for split in SPLITS}
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}); {AGAIN}") from None
    for number, row in enumerate(rows, 2):
        synset, model, split = (row.get(key) for key in ("synsetId", "modelId", "split"))
        if not synset or not model or split not in SPLITS:
            raise DataError(
                f"{path}, line {number}: synsetId {synset}, modelId {model}, split {split} are no entry; {AGAIN}"
            )
        found[split].append((synset.zfill(8), model))
    return _checked(found, path)


def read_split_lists(folder: Path) -> dict[str, list[Shape]]:
    """``<synset>/train.lst``, ``val.lst`` and ``test.lst`` below ``folder``, as with Occupancy Networks (Choy et al.'s split)."""
    found: dict[str, list[Shape]] = {split: [] for split in SPLITS}
    for path in sorted(folder.glob("*/*.lst")):
        if path.stem in found:
            found[path.stem] += [(path.parent.name, model) for model in read_text(path).split()]
    return _checked(found, folder)


def read_split_json(path: Path) -> list[Shape]:
    """One split of DeepSDF, such as ``sv2_chairs_train.json``: {"ShapeNetV2": {synset: [model, ...]}}."""
    content = read_json(path)
    try:
        found = [
            (str(synset), str(model))
            for part in content.values()
            for synset, models in part.items()
            for model in models
        ]
    except (AttributeError, TypeError):
        raise DataError(f"{path} is not {{collection: {{synset: [models]}}}}; {AGAIN}") from None
    return _checked({"": found}, path)[""]


def _checked(splits: dict[str, list[Shape]], path: Path) -> dict[str, list[Shape]]:
    every = [shape for shapes in splits.values() for shape in shapes]
    if not every or len(set(every)) != len(every):
        raise DataError(
            f"{path} lists {len(every)} models, {len(set(every))} of them different; each must be in one split: {AGAIN}"
        )
    for synset, model in every:
        if not synset.isdigit() or not model or set(model) & set("/\\.\0:"):
            raise DataError(f"{path}: {synset[:40]}/{model[:60]!r} is no model of ShapeNet; {AGAIN}")
    return splits
