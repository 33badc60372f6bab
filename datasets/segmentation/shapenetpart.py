"""ShapeNet-part (Yi et al. 2016): 16 categories of aligned shapes, 50 parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats.files import inside
from adlbench.datasets.formats.shapenetpart import CATEGORIES, PARTS, SYNSETS, parts_of, read_part_cloud, read_split
from adlbench.datasets.points import draw


@dataclass
class ShapeNetPart(Dataset):
    """The text release with normals. ``num_points`` of each shape are drawn without repetition while they last.

    The lists of ``train_test_split`` decide; with ``train: [train, val]``, as PointNet++ trains, both are learnt from.
    """

    folder: str = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    num_points: int = 2048
    train: tuple[str, ...] = ("train",)

    def missing(self) -> str | None:
        if (self._root / "train_test_split").is_dir():
            return None
        return f"unpack {Path(self.folder).name}.zip so that {self._root}/train_test_split exists"

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "normals", "label", "point_label"),
            num_train=len(self._entries("train")),
            num_test=len(self._entries("test")),
            classes=CATEGORIES,
            parts=PARTS,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        entries = self._entries(split)
        shape = (len(entries), self.num_points)
        points, normals = np.empty((*shape, 3), np.float32), np.empty((*shape, 3), np.float32)
        parts, labels = np.empty(shape, np.int64), np.empty(len(entries), np.int64)
        names = {synset: name for name, synset in SYNSETS.items()}
        for index, (synset, path) in enumerate(entries):
            cloud = read_part_cloud(path)
            category = names[synset]
            own = parts_of(category)
            foreign = (cloud.parts < own.start) | (cloud.parts >= own.stop)
            if foreign.any():
                part = cloud.parts[foreign.argmax()]
                raise DataError(
                    f"{path}: part {part} is none of a {category}'s ({own.start}..{own.stop - 1}); fetch it again"
                )
            rows = draw(len(cloud.points), self.num_points, f"{synset}/{path.stem}")
            points[index], normals[index], parts[index] = cloud.points[rows], cloud.normals[rows], cloud.parts[rows]
            labels[index] = CATEGORIES.index(category)
        return ArraySplit(points=points, normals=normals, label=labels, point_label=parts)

    def sources(self) -> tuple[Path, ...]:
        lists = tuple(self._list(name) for name in (*self.train, "test"))
        return lists + tuple(path for split in ("train", "test") for _, path in self._entries(split))

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _list(self, name: str) -> Path:
        return self._root / "train_test_split" / f"shuffled_{name}_file_list.json"

    def _entries(self, split: str) -> list[tuple[str, Path]]:
        missing = self.missing()
        if missing:
            raise DataError(missing)
        names = self.train if split == "train" else ("test",)
        found = sorted({entry for name in names for entry in read_split(self._list(name))})
        if split == "train":
            both = set(found) & set(read_split(self._list("test")))
            if both:
                raise DataError(
                    f"{self._root}: {'/'.join(min(both))} is for training and for testing; train on other lists"
                )
        return [(synset, inside(self._root, f"{synset}/{shape}.txt", self._list(split))) for synset, shape in found]
