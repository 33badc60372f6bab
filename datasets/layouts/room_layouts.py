"""Generated rooms as lists of furniture."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.rooms import FURNITURE
from adlbench.datasets.generated.rooms_sets import layout_set


@dataclass
class RoomLayouts(Dataset):
    """Metres, y up, the origin in the middle of the floor. ``generated.front`` writes the same rooms as 3D-FRONT files."""

    num_train: int = 120
    num_test: int = 30
    max_pieces: int = 16
    seed: int = 0

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.LAYOUT,
            fields=("furniture", "furniture_label"),
            num_train=self.num_train,
            num_test=self.num_test,
            classes=FURNITURE,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        count = self.num_train if split == "train" else self.num_test
        arrays = layout_set(split, count, self.max_pieces, self.seed)
        return ArraySplit(furniture=arrays["furniture"], furniture_label=arrays["furniture_label"])
