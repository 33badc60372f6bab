"""S3DIS (Armeni et al. 2016): six floors of offices, cut into columns as PointNet does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats.s3dis import CLASSES, Room, read_room
from adlbench.datasets.generated.cache import Arrays, cached
from adlbench.datasets.points import draw, stamp, y_up


@dataclass
class S3DIS(Dataset):
    """Rooms are cut into columns of ``block`` x ``block`` metres over the floor plan; items are columns of ``num_points`` points.

    Positions are in metres from the column's centre and the room's lowest point, y up. A column of fewer than
    ``min_points`` is left out, as in PointNet's preparation. ``test`` names the areas, or areas and rooms, for testing.
    """

    folder: str = "Stanford3dDataset_v1.2_Aligned_Version"
    classes: tuple[str, ...] = CLASSES
    test: tuple[str, ...] = ("Area_5",)
    block: float = 1.0  # metres
    num_points: int = 4096
    min_points: int = 100

    def missing(self) -> str | None:
        if any(self._root.glob("*/*/Annotations")):
            return None
        return f"unpack {Path(self.folder).name}.zip so that {self._root}/Area_1/<room>/Annotations/*.txt exist"

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "colours", "point_label"),
            num_train=len(self.load(instance, "train")),
            num_test=len(self.load(instance, "test")),
            parts=self.classes,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        rooms = self._rooms(split)
        settings = {"classes": self.classes, "block": self.block, "num_points": self.num_points, "min": self.min_points}
        columns = []
        for room in rooms:  # one cache entry each, so that an interrupted conversion goes on where it was
            key = settings | {"files": stamp(sorted(room.glob("Annotations/*.txt")), self._root)}
            name = "-".join(room.relative_to(self._root).parts)
            columns.append(cached(f"s3dis-{name}", 1, key, lambda room=room, name=name: self._columns(room, name)))  # type: ignore[misc]
        return ArraySplit(**{field: np.concatenate([part[field] for part in columns]) for field in columns[0]})

    def sources(self) -> tuple[Path, ...]:
        rooms = (room for split in ("train", "test") for room in self._rooms(split))
        return tuple(path for room in rooms for path in sorted(room.glob("Annotations/*.txt")))

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _rooms(self, split: str) -> list[Path]:
        rooms = sorted(path.parent for path in self._root.glob("*/*/Annotations"))
        chosen = [room for room in rooms if self._held_out(room) == (split == "test")]
        if not chosen:
            raise DataError(
                self.missing() or f"{self._root} has no rooms for the {split} split; test is {', '.join(self.test)}"
            )
        return chosen

    def _held_out(self, room: Path) -> bool:
        name = room.relative_to(self._root).as_posix()
        return any(name == test or name.startswith(f"{test}/") for test in self.test)

    def _columns(self, folder: Path, name: str) -> Arrays:
        room: Room = read_room(folder / "Annotations", self.classes)
        low = room.points.min(axis=0)
        cell = np.floor((room.points[:, :2] - low[:2]) / self.block).astype(np.int64)
        cells, which, counts = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(which.ravel(), kind="stable")
        ends = np.cumsum(counts)
        items: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for index, (corner, end, count) in enumerate(zip(cells, ends, counts)):
            if count < self.min_points:
                continue
            rows = order[end - count : end][draw(int(count), self.num_points, f"{name}/{index}")]
            centre = [*(low[:2] + (corner + 0.5) * self.block), low[2]]
            items.append((y_up(room.points[rows] - centre), room.colours[rows] / np.float32(255), room.labels[rows]))
        if not items:
            raise DataError(f"{folder} has no column of {self.min_points} points or more; give a larger block")
        points, colours, labels = (np.stack(field) for field in zip(*items))
        return {"points": points.astype(np.float32), "colours": colours.astype(np.float32), "point_label": labels}
