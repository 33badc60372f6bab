"""Generated furniture with samples of its signed distance, one class at a time."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture_sets import shape_set


@dataclass
class FurnitureShapes(Dataset):
    """Instances are classes; items are shapes in their canonical orientation, inside the unit sphere."""

    classes: tuple[str, ...] = ("sofa", "chair")
    num_train: int = 100
    num_test: int = 16
    num_sdf: int = 16384
    num_surface: int = 8192  # of a training shape
    num_test_surface: int = 30000  # of a test shape: as many as DeepSDF compares
    seed: int = 0

    def instances(self) -> tuple[str, ...]:
        return tuple(self.classes)

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.SHAPE,
            fields=("sdf_points", "sdf", "surface_points", "surface_normals"),
            num_train=self.num_train,
            num_test=self.num_test,
            scene_radius=1.0,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        if instance not in self.classes:
            raise DataError(
                f"there is no instance {instance!r}; choose from {', '.join(self.classes)} or add it to `classes`"
            )
        train = split == "train"
        count = self.num_train if train else self.num_test
        num_surface = self.num_surface if train else self.num_test_surface
        return ArraySplit(
            **shape_set(instance, count, split, num_sdf=self.num_sdf, num_surface=num_surface, seed=self.seed)
        )
