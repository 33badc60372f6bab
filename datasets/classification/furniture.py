"""Point clouds of generated furniture, to be classified whatever way they face."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture import CLASSES
from adlbench.datasets.generated.furniture_sets import point_set


@dataclass
class Furniture(Dataset):
    """y is up. See datasets/generated/README.md for how the shapes come about."""

    train_per_class: int = 100
    test_per_class: int = 25
    num_points: int = 1024
    tilt: float = 12.0  # degrees
    seed: int = 0
    classes: tuple[str, ...] = CLASSES

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "normals", "label"),
            num_train=self.train_per_class * len(self.classes),
            num_test=self.test_per_class * len(self.classes),
            classes=tuple(self.classes),
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        per_class = self.train_per_class if split == "train" else self.test_per_class
        arrays = point_set(per_class, split, self.num_points, self.tilt, self.seed, classes=tuple(self.classes))
        return ArraySplit(**{field: arrays[field] for field in self.schema().fields})
