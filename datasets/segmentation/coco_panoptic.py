"""COCO's panoptic segments: every pixel has a class, and where that is a thing, the number of the object.

A. Kirillov, K. He, R. Girshick, C. Rother and P. Dollár, Panoptic Segmentation, CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.detection.boxes import fit, fit_map
from adlbench.datasets.files import FileSplit, decoded, put_there
from adlbench.datasets.formats.coco import UNLABELLED, CocoPanoptic, read_coco_panoptic, read_panoptic_masks


@dataclass
class CocoPanopticSet(Dataset):
    """train2017 for training and val2017 for testing. Images are scaled until they fit into a square, labels with them."""

    folder: str = "coco"
    train: str = "train2017"
    test: str = "val2017"
    images: str = "{split}"
    segments: str = "annotations/panoptic_{split}"  # of PNG files; the annotation file is beside it
    size: int = 256  # pixels a side
    in_memory: bool = False

    def missing(self) -> str | None:
        names = []
        for split in (self.train, self.test):
            segments = self.segments.format(split=split)
            names += [self.images.format(split=split), segments, f"{segments}.json"]
        return put_there(self.folder, names)

    def sources(self) -> tuple[Path, ...]:
        files = []
        for split, name in (("train", self.train), ("test", self.test)):
            files += [self._root / f"{self.segments.format(split=name)}.json"]
            files += [path for pair in self._paths(split) for path in pair]
        return tuple(files)

    def schema(self, instance: str = "all") -> DataSchema:
        train, test = self._panoptic("train"), self._panoptic("test")
        if train.categories != test.categories:
            raise DataError(f"{self._root}: the annotation files of {self.train} and {self.test} name other categories")
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "mask", "instance"),
            num_train=len(train.images),
            num_test=len(test.images),
            classes=train.categories,
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> Split:
        panoptic, paths, size = self._panoptic(split), self._paths(split), self.size

        def decode(index: int) -> dict[str, np.ndarray]:
            image, (picture, segments) = panoptic.images[index], paths[index]
            mask, number = read_panoptic_masks(segments, image, panoptic.is_thing)
            return {
                "image": fit(picture, size, image.height, image.width),
                "mask": fit_map(mask, size, UNLABELLED),
                "instance": fit_map(number, size, 0),
            }

        if self.in_memory:
            return decoded(len(paths), decode)
        files = [self._annotations(split), *(path for pair in paths for path in pair)]
        return FileSplit(len(paths), decode, files, self._root, f"size={size}")

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _annotations(self, split: str) -> Path:
        return self._root / f"{self.segments.format(split=self.train if split == 'train' else self.test)}.json"

    def _panoptic(self, split: str) -> CocoPanoptic:
        missing = self.missing()
        if missing:
            raise DataError(f"COCO's panoptic set is not complete: {missing}")
        path = self._annotations(split)
        return _read(path, path.stat().st_mtime_ns)

    def _paths(self, split: str) -> list[tuple[Path, Path]]:
        """(image, segments) of every image of the split."""
        name = self.train if split == "train" else self.test
        pictures, segments = (self._root / folder.format(split=name) for folder in (self.images, self.segments))
        return [(pictures / image.file_name, segments / image.segments_file) for image in self._panoptic(split).images]


@lru_cache(maxsize=2)
def _read(path: Path, modified_ns: int) -> CocoPanoptic:
    return read_coco_panoptic(path)
