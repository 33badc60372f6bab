"""Point clouds of generated furniture with the part that every point belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality
from adlbench.datasets.generated.furniture import CLASSES, PARTS
from adlbench.datasets.generated.furniture_sets import point_set


@dataclass
class FurnitureParts(Dataset):
    """The shapes of the classification set ``furniture`` with a part for every point; names are shared across the classes.

    The shapes face one way unless ``turn``, as those of ShapeNet-part do. ``merge`` maps a part's name to the part that it
    counts as: by default the small ones that belong to what carries them.
    """

    train_per_class: int = 100
    test_per_class: int = 25
    num_points: int = 1024
    tilt: float = 12.0  # degrees
    turn: bool = False  # by any angle about the up axis
    merge: dict[str, str] = field(
        default_factory=lambda: {"stretcher": "leg", "apron": "top", "door": "panel", "pillow": "mattress"}
    )
    seed: int = 0
    classes: tuple[str, ...] = CLASSES

    @property
    def parts(self) -> tuple[str, ...]:
        unknown = (self.merge.keys() | set(self.merge.values())) - set(PARTS)
        if unknown:
            raise DataError(f"merge names {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
        return tuple(name for name in PARTS if name not in self.merge)

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "normals", "label", "point_label"),
            num_train=self.train_per_class * len(self.classes),
            num_test=self.test_per_class * len(self.classes),
            classes=tuple(self.classes),
            parts=self.parts,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        per_class = self.train_per_class if split == "train" else self.test_per_class
        arrays = point_set(per_class, split, self.num_points, self.tilt, self.seed, self.turn, tuple(self.classes))
        names = self.parts
        index = torch.tensor([names.index(self.merge.get(name, name)) for name in PARTS])
        fields = {name: torch.as_tensor(array) for name, array in arrays.items()}
        fields["point_label"] = index[fields["point_label"]]
        return ArraySplit(**fields)
