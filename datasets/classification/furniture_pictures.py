"""Pictures of generated furniture."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture import ALL_CLASSES
from adlbench.datasets.generated.furniture_pictures import picture_set


@dataclass
class FurniturePictures(Dataset):
    """One picture of each shape, from any side, on white."""

    train_per_class: int = 16
    test_per_class: int = 4
    size: int = 64  # pixels, square
    seed: int = 0
    classes: tuple[str, ...] = ALL_CLASSES

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=self.train_per_class * len(self.classes),
            num_test=self.test_per_class * len(self.classes),
            classes=tuple(self.classes),
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        per_class = self.train_per_class if split == "train" else self.test_per_class
        arrays = picture_set(tuple(self.classes), per_class, split, self.size, self.seed)
        return ArraySplit(image=arrays["image"], label=arrays["label"])
