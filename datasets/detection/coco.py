"""COCO: photographs of everyday scenes with boxes and masks of eighty kinds of objects, as published.

T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.detection.boxes import fit, fit_map, pad
from adlbench.datasets.files import FileSplit, decoded, put_there
from adlbench.datasets.formats.coco import CocoObjects, object_mask, read_coco_objects


@dataclass
class Coco(Dataset):
    """train2017 for training and val2017 for testing: the labels of test2017 are not public.

    Images are scaled until they fit into a square and boxes with them. Images without objects stay.
    """

    folder: str = "coco"
    train: str = "train2017"
    test: str = "val2017"
    annotations: str = "annotations/instances_{split}.json"
    size: int = 256  # pixels a side
    masks: bool = False  # also ``box_mask``, M x size x size an item
    in_memory: bool = False

    def missing(self) -> str | None:
        return put_there(
            self.folder, [name for split in (self.train, self.test) for name in (split, self._file(split))]
        )

    def sources(self) -> tuple[Path, ...]:
        return tuple(
            path
            for split, name in (("train", self.train), ("test", self.test))
            for path in (self._root / self._file(name), *self._paths(split))
        )

    def schema(self, instance: str = "all") -> DataSchema:
        train, test = self._objects("train"), self._objects("test")
        if train.categories != test.categories:
            raise DataError(f"{self._root}: {self._file(self.train)} and {self._file(self.test)} name other categories")
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "boxes", "box_label", "box_crowd") + ("box_mask",) * self.masks,
            num_train=len(train.images),
            num_test=len(test.images),
            classes=train.categories,
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> Split:
        images, paths, size = self._objects(split).images, self._paths(split), self.size
        count = max(1, *(len(image.label) for image in images))
        scale = [size / max(image.height, image.width) for image in images]

        def decode(index: int) -> dict[str, np.ndarray]:
            image = images[index]
            fields = {"image": fit(paths[index], size, image.height, image.width)}
            if self.masks:
                fields["box_mask"] = np.zeros((count, size, size), dtype=bool)
                for number, shape in enumerate(image.shapes):
                    mask = object_mask(shape, image.height, image.width)
                    fields["box_mask"][number] = fit_map(mask.astype(np.uint8), size, 0).astype(bool)
            return fields

        arrays = {
            "boxes": pad([image.boxes * np.float32(s) for image, s in zip(images, scale)], 0, count),
            "box_label": pad([image.label for image in images], -1, count),
            "box_crowd": pad([image.crowd for image in images], False, count),
        }
        if self.in_memory:
            return decoded(len(images), decode, **arrays)
        return FileSplit(len(images), decode, paths, self._root, f"size={size} masks={self.masks}", **arrays)

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _file(self, name: str) -> str:
        return self.annotations.format(split=name)

    def _objects(self, split: str) -> CocoObjects:
        missing = self.missing()
        if missing:
            raise DataError(f"COCO is not complete: {missing}")
        path = self._root / self._file(self.train if split == "train" else self.test)
        return _read(path, path.stat().st_mtime_ns)

    def _paths(self, split: str) -> list[Path]:
        folder = self._root / (self.train if split == "train" else self.test)
        return [folder / image.file_name for image in self._objects(split).images]


@lru_cache(maxsize=2)  # the training file takes ten seconds to read
def _read(path: Path, modified_ns: int) -> CocoObjects:
    return read_coco_objects(path)
