"""Point clouds of generated furniture with the part that every point belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture import CLASSES, PARTS
from adlbench.datasets.generated.furniture_sets import point_set


@dataclass
class FurnitureParts(Dataset):
    """The shapes and points of the classification set ``furniture``; part names are shared across the classes."""

    train_per_class: int = 100
    test_per_class: int = 25
    num_points: int = 1024
    tilt: float = 12.0  # degrees
    seed: int = 0

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "normals", "label", "point_label"),
            num_train=self.train_per_class * len(CLASSES),
            num_test=self.test_per_class * len(CLASSES),
            classes=CLASSES,
            parts=PARTS,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        per_class = self.train_per_class if split == "train" else self.test_per_class
        return ArraySplit(**point_set(per_class, split, self.num_points, self.tilt, self.seed))
