"""Detection sets in the layout of the YOLO family: a text file of boxes or polygons for each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.detection.boxes import fit, fit_map, pad
from adlbench.datasets.files import FileSplit, decoded, put_there
from adlbench.datasets.formats.coco import object_mask
from adlbench.datasets.formats.images import image_size, list_images
from adlbench.datasets.formats.yolo import YoloLabels, read_yolo_classes, read_yolo_labels


@dataclass
class YoloFolder(Dataset):
    """``images/SPLIT/x.jpg`` with ``LABELS/labels/SPLIT/x.txt`` and the names of the classes in ``LABELS/config.yaml``.

    Boxes come from the folder ``boxes``, or, with ``masks``, from the polygons in the folder ``polygons``. An image
    without a label file has no objects.
    """

    folder: str = "coco128"
    train: str = "train2017"
    test: str = "val2017"
    boxes: str = "object_detection"
    polygons: str = "instance_segmentation"
    size: int = 256  # pixels a side: images are scaled until they fit
    masks: bool = False
    in_memory: bool = True

    def missing(self) -> str | None:
        splits = (self.train, self.test)
        names = [
            f"{self._labels}/config.yaml",
            *(f"images/{s}" for s in splits),
            *(f"{self._labels}/labels/{s}" for s in splits),
        ]
        return put_there(self.folder, names)

    def sources(self) -> tuple[Path, ...]:
        files = [pair for split in ("train", "test") for pair in self._files(split)]
        return (self._root / self._labels / "config.yaml", *(p for pair in files for p in pair if p.exists()))

    def schema(self, instance: str = "all") -> DataSchema:
        num_train, num_test = (len(self._files(split)) for split in ("train", "test"))
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "boxes", "box_label") + ("box_mask",) * self.masks,
            num_train=num_train,
            num_test=num_test,
            classes=tuple(self._classes().values()),
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> Split:
        files, size = self._files(split), self.size
        place = {number: index for index, number in enumerate(self._classes())}
        labels = [read_yolo_labels(path, place) for _, path in files]
        sides = [image_size(path) for path, _ in files]
        count = max(1, *(len(label.label) for label in labels))

        def decode(index: int) -> dict[str, np.ndarray]:
            path, (height, width) = files[index][0], sides[index]
            fields = {"image": fit(path, size, height, width)}
            if self.masks:
                fields["box_mask"] = np.zeros((count, size, size), dtype=bool)
                for number, polygon in enumerate(labels[index].polygons):
                    mask = object_mask((polygon * [width, height],), height, width)
                    fields["box_mask"][number] = fit_map(mask.astype(np.uint8), size, 0).astype(bool)
            return fields

        arrays = {
            "boxes": pad([_pixels(label, side, size) for label, side in zip(labels, sides)], 0, count),
            "box_label": pad([label.label for label in labels], -1, count),
        }
        if self.in_memory:
            return decoded(len(files), decode, **arrays)
        paths = [path for path, _ in files]
        return FileSplit(len(files), decode, paths, self._root, f"size={size} masks={self.masks}", **arrays)

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    @property
    def _labels(self) -> str:
        return self.polygons if self.masks else self.boxes

    def _classes(self) -> dict[int, str]:
        missing = self.missing()
        if missing:
            raise DataError(f"{self.folder} is not complete: {missing}")
        return read_yolo_classes(self._root / self._labels / "config.yaml")

    def _files(self, split: str) -> list[tuple[Path, Path]]:
        """(image, labels) of every image of the split."""
        name = self.train if split == "train" else self.test
        images = list_images(self._root / "images" / name)
        if not images:
            raise DataError(f"{self._root}/images/{name} has no images; {self.missing() or 'put them there'}")
        return [(path, self._root / self._labels / "labels" / name / f"{path.stem}.txt") for path in images]


def _pixels(labels: YoloLabels, side: tuple[int, int], size: int) -> np.ndarray:
    height, width = side
    return labels.boxes * np.array([width, height, width, height], dtype=np.float32) * np.float32(size / max(side))
