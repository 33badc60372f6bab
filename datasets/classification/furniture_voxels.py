"""Voxel grids of generated furniture: occupancy, signed distance, and what one view tells."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture import ALL_CLASSES
from adlbench.datasets.generated.furniture_pictures import grid_set


@dataclass
class FurnitureVoxels(Dataset):
    """The cube [-1, 1]^3 around each shape, which is turned by any angle about the up axis (y)."""

    train_per_class: int = 16
    test_per_class: int = 4
    resolution: int = 32
    seed: int = 0
    classes: tuple[str, ...] = ALL_CLASSES

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.VOXELS,
            fields=("occupancy", "sdf_grid", "ternary", "label"),
            num_train=self.train_per_class * len(self.classes),
            num_test=self.test_per_class * len(self.classes),
            classes=tuple(self.classes),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        per_class = self.train_per_class if split == "train" else self.test_per_class
        return ArraySplit(**grid_set(tuple(self.classes), per_class, split, self.resolution, self.seed))
