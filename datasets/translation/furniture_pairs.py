"""Generated pictures to translate into each other: from part labels or edges to pictures, and from plain to striped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture import ALL_CLASSES, PARTS
from adlbench.datasets.generated.furniture_pictures import picture_set


@dataclass
class FurniturePairs(Dataset):
    """``image`` is to become ``target_image``.

    ``source`` "labels" shows each part in a colour of its own, "edges" shows black lines on white, and "plain" the shape
    itself, to be given stripes. With ``paired`` false the training items are unrelated: both are of different shapes. The
    test items are always pairs, so that a translation can be compared with the truth.
    """

    source: Literal["labels", "edges", "plain"] = "labels"
    paired: bool = True
    train_per_class: int = 16
    test_per_class: int = 4
    size: int = 64  # pixels, square
    seed: int = 0
    classes: tuple[str, ...] = ALL_CLASSES

    def schema(self, instance: str = "all") -> DataSchema:
        train = self.train_per_class * len(self.classes)
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "target_image"),
            num_train=train if self.paired else train // 2,
            num_test=self.test_per_class * len(self.classes),
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        per_class = self.train_per_class if split == "train" else self.test_per_class
        arrays = picture_set(tuple(self.classes), per_class, split, self.size, self.seed)
        target = arrays["striped" if self.source == "plain" else "image"]
        if self.source == "labels":
            source = palette()[arrays["mask"]].transpose(0, 3, 1, 2)
        elif self.source == "edges":
            source = np.repeat(arrays["edges"], 3, axis=1)
        elif self.source == "plain":
            source = arrays["image"]
        else:
            raise DataError(f"source={self.source!r}: choose labels, edges or plain")
        if split == "train" and not self.paired:  # one half of the shapes for each domain
            half = len(source) // 2
            source, target = source[:half], target[half : 2 * half]
        return ArraySplit(image=source, target_image=target)


def palette() -> np.ndarray:
    """uint8 [256, 3]: a colour of its own for each part, white for everything else."""
    colours = np.full((256, 3), 255, dtype=np.uint8)
    steps = np.array([0, 110, 220])
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    colours[: len(PARTS)] = grid[np.random.default_rng(0).permutation(len(grid))[: len(PARTS)]]
    return colours
