"""CIFAR-10: 32x32 colour photographs of ten classes, in the python batches of its authors.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, University of Toronto, 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import put_there
from adlbench.datasets.formats.cifar import read_cifar_batch, read_cifar_names

MAX_BATCHES = 5


@dataclass
class CIFAR10(Dataset):
    """``data_batch_1`` to ``data_batch_5`` in this order for training, ``test_batch`` for testing.

    Fewer training batches are read too, as long as none is left out between: a part of the set, with another fingerprint.
    """

    folder: str = "cifar10/cifar-10-batches-py"  # below the data root

    def missing(self) -> str | None:
        return put_there(self.folder, ("batches.meta", "data_batch_1", "test_batch"))

    def sources(self) -> tuple[Path, ...]:
        return (self._root / "batches.meta", *self._batches("train"), *self._batches("test"))

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=len(self.load(instance, "train")),
            num_test=len(self.load(instance, "test")),
            classes=self._classes(),
            channels=3,
            image_size=(32, 32),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        missing = self.missing()
        if missing:
            raise DataError(f"CIFAR-10 is not complete: {missing}")
        num_classes, images, labels = len(self._classes()), [], []
        for path in self._batches(split):
            image, label = read_cifar_batch(path)
            if len(label) == 0 or int(label.max()) >= num_classes:
                raise DataError(f"{path} is empty, or has labels past the {num_classes} classes; fetch it again")
            images.append(image)
            labels.append(label)
        return ArraySplit(image=np.concatenate(images), label=np.concatenate(labels))

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _classes(self) -> tuple[str, ...]:
        return read_cifar_names(self._root / "batches.meta")

    def _batches(self, split: str) -> list[Path]:
        if split == "test":
            return [self._root / "test_batch"]
        there = [self._root / f"data_batch_{number}" for number in range(1, MAX_BATCHES + 1)]
        present = [path.is_file() for path in there]
        count = present.index(False) if False in present else MAX_BATCHES
        if any(present[count:]):
            raise DataError(f"{there[count]} is missing and later batches are there; put it there too")
        return there[:count]
