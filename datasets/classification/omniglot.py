"""Omniglot: handwritten characters of fifty alphabets, each drawn once by twenty people, read from the published zips.

B. Lake, R. Salakhutdinov and J. Tenenbaum, Human-level concept learning through probabilistic program induction,
Science 350, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import put_there
from adlbench.datasets.formats.omniglot import SIZE, Drawings, read_omniglot


@dataclass
class Omniglot(Dataset):
    """Two zips are the authors' split: the characters of the test set do not occur in training.

    With one zip alone (no ``test``), every character is in both splits, and it is the people who differ: the first
    ``train_drawers`` of the twenty draw for training. That split is this package's; the authors have none for it.
    """

    folder: str = "omniglot"
    train: str = "images_background.zip"
    test: str = "images_evaluation.zip"
    train_drawers: int = 0  # with one zip: people who draw for training
    size: int = 28  # pixels a side, 105 as published

    def missing(self) -> str | None:
        return put_there(self.folder, [name for name in (self.train, self.test) if name])

    def sources(self) -> tuple[Path, ...]:
        return tuple(data_root() / self.folder / name for name in (self.train, self.test) if name)

    def schema(self, instance: str = "all") -> DataSchema:
        train, test = self.load(instance, "train"), self.load(instance, "test")
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=len(train),
            num_test=len(test),
            classes=self._drawings(self.train).classes + (self._drawings(self.test).classes if self.test else ()),
            channels=1,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        missing = self.missing()
        if missing:
            raise DataError(f"Omniglot is not complete: {missing}")
        drawings, offset = self._drawings(self.train), 0
        if self.test and split == "test":
            offset, drawings = len(drawings.classes), self._drawings(self.test)
        chosen = np.ones(len(drawings.label), dtype=bool)
        if not self.test:
            chosen = (drawings.drawer <= self.train_drawers) == (split == "train")
        if not chosen.any():
            raise DataError(f"train_drawers={self.train_drawers} leaves nothing for the {split} split; give 1 to 19")
        return ArraySplit(image=drawings.image[chosen][:, None], label=drawings.label[chosen] + offset)

    def _drawings(self, name: str) -> Drawings:
        path = data_root() / self.folder / name
        return _scaled(path, path.stat().st_mtime_ns, self.size)


@lru_cache(maxsize=2)
def _scaled(path: Path, modified_ns: int, size: int) -> Drawings:
    drawings = read_omniglot(path)
    if size == SIZE:
        return drawings
    images = [np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC)) for i in drawings.image]
    return Drawings(np.stack(images), drawings.label, drawings.drawer, drawings.classes)
