"""Pictures of generated rooms with a box around every piece of furniture that is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.cache import Arrays, cached
from adlbench.datasets.generated.rooms import FURNITURE, LABELS, STRUCTURE
from adlbench.datasets.generated.rooms_sets import VERSION, Views, view_set


@dataclass
class RoomObjects(Dataset):
    """Every view of every room is an item. Boxes are around what is visible: pieces with fewer than ``least`` pixels have
    none. ``mask`` names the furniture alone; all else is unlabelled."""

    num_train: int = 48  # rooms
    num_test: int = 12
    views: int = 3  # of each room
    height: int = 64
    width: int = 80
    most: int = 12  # boxes in a picture, largest first
    least: int = 20  # pixels
    seed: int = 0

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "boxes", "box_label", "box_crowd", "mask", "instance"),
            num_train=self.num_train * self.views,
            num_test=self.num_test * self.views,
            classes=FURNITURE,
            channels=3,
            image_size=(self.height, self.width),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        count = self.num_train if split == "train" else self.num_test
        views = Views(self.views, self.height, self.width)
        parameters = {"split": split, "count": count, "views": vars(views)}
        parameters |= {"most": self.most, "least": self.least, "seed": self.seed}

        def make() -> Arrays:
            arrays = view_set(split, count, views, self.seed)
            image, mask, number = (merged(arrays[name]) for name in ("image", "mask", "instance"))
            furniture = (mask >= len(STRUCTURE)) & (mask < len(LABELS))
            number = np.where(furniture, number, 0)
            found = [boxes_of(*pair, self.most, self.least) for pair in zip(number, mask)]
            return {
                "image": np.ascontiguousarray(image.transpose(0, 3, 1, 2)),
                "boxes": np.stack([boxes for boxes, _ in found]),
                "box_label": np.stack([label for _, label in found]),
                "box_crowd": np.zeros((len(image), self.most), dtype=bool),
                "mask": np.where(furniture, mask - np.uint8(len(STRUCTURE)), 255).astype(np.uint8),
                "instance": number.astype(np.int32),
            }

        return ArraySplit(**cached("room-objects", VERSION, parameters, make))


def merged(array: np.ndarray) -> np.ndarray:
    """[rooms, views, ...] as [rooms * views, ...]."""
    return array.reshape(-1, *array.shape[2:])


def boxes_of(number: np.ndarray, mask: np.ndarray, most: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """``boxes`` float32 [most, 4] and ``box_label`` int64 [most] of the instances [H, W] > 0, the largest first."""
    boxes, label = np.zeros((most, 4), dtype=np.float32), np.full(most, -1, dtype=np.int64)
    values, sizes = np.unique(number[number > 0], return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    shown = [values[i] for i in order if sizes[i] >= least][:most]
    for place, value in enumerate(shown):
        rows, columns = np.nonzero(number == value)
        boxes[place] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        label[place] = int(mask[rows[0], columns[0]]) - len(STRUCTURE)
    return boxes, label
