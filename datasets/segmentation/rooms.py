"""Generated rooms as coloured points with semantic and instance labels, as in ScanNet."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality
from adlbench.datasets.generated.rooms import LABELS
from adlbench.datasets.generated.rooms_sets import Views, cloud_set, view_set


@dataclass
class Rooms(Dataset):
    """Metres, y up, the origin in the middle of the floor. An item is a room."""

    num_train: int = 48
    num_test: int = 12
    num_points: int = 8192
    seed: int = 0

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "normals", "colours", "point_label", "point_instance"),
            num_train=self.num_train,
            num_test=self.num_test,
            parts=LABELS,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        return ArraySplit(**cloud_set(split, self._count(split), self.num_points, self.seed))

    def _count(self, split: str) -> int:
        return self.num_train if split == "train" else self.num_test


@dataclass
class RoomViews(Rooms):
    """The same rooms with RGB-D pictures besides their points, as 3DMV takes them (Dai and Niessner, ECCV 2018).

    The fields of posed images, ``mask`` and ``instance`` have a dimension of views: [V, H, W, ...].
    """

    views: int = 3
    height: int = 64
    width: int = 80

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.SCENE_COLLECTION,
            fields=(
                *super().schema(instance).fields,
                *("image", "depth", "mask", "instance", "intrinsics", "world_to_camera"),
            ),
            num_train=self.num_train,
            num_test=self.num_test,
            classes=LABELS,
            parts=LABELS,
            channels=3,
            image_size=(self.height, self.width),
            num_points=self.num_points,
            near=0.05,
            far=9.0,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        views = view_set(split, self._count(split), Views(self.views, self.height, self.width), self.seed)
        return ArraySplit(**super().load(instance, split).fields, **views)
