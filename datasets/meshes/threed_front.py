"""3D-FRONT (Fu et al. 2021): rooms as lists of furniture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats.files import read_text
from adlbench.datasets.formats.threed_front import Piece, Room, read_categories, read_house, read_model

# ATISS (Paschalidou et al. 2021) takes rooms for bedrooms and living rooms when their kind contains these words.
KINDS = {"bedroom": ("bedroom",), "livingroom": ("livingroom",), "diningroom": ("diningroom",), "library": ("library",)}


@dataclass
class ThreedFront(Dataset):
    """Instances are kinds of rooms. ``furniture`` is relative to the centre of the floor, or of the pieces where no floor is given.

    The split is a list of houses for testing, one identifier a line, such as those made from the lists of ATISS.
    """

    folder: str = "3D-FRONT"
    future: str = "3D-FUTURE-model"
    test_list: str = "3D-FRONT-test.txt"
    kinds: tuple[str, ...] = ("bedroom", "livingroom", "diningroom", "library")
    max_pieces: int = 32

    def instances(self) -> tuple[str, ...]:
        return self.kinds

    def missing(self) -> str | None:
        wanted = {
            self.folder: "one json a house",
            self.test_list: "the houses for testing",
            self.future: "with model_info.json",
        }
        absent = [f"{name} ({what})" for name, what in wanted.items() if not (data_root() / name).exists()]
        return (
            f"put {', '.join(absent)} into {data_root()}; 3D-FRONT and 3D-FUTURE are given on request"
            if absent
            else None
        )

    def schema(self, instance: str = "bedroom") -> DataSchema:
        return DataSchema(
            modality=Modality.LAYOUT,
            fields=("furniture", "furniture_label"),
            num_train=len(self._rooms(instance, "train")),
            num_test=len(self._rooms(instance, "test")),
            classes=self._classes(),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        rooms = self._rooms(instance, split)
        categories, names = self._categories(), self._classes()
        if not rooms:
            raise DataError(
                f"{data_root() / self.folder} has no {instance} for the {split} split; {self.test_list} decides"
            )
        furniture = np.zeros((len(rooms), self.max_pieces, 7), dtype=np.float32)
        labels = np.full((len(rooms), self.max_pieces), -1, dtype=np.int64)
        for row, (path, room) in enumerate(rooms):
            boxes = np.stack([self._box(piece, path) for piece in room.pieces])
            extent = room.floor.vertices if room.floor else boxes[:, :3]
            low, high = extent.min(axis=0), extent.max(axis=0)
            boxes[:, :3] -= [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]
            furniture[row, : len(boxes)] = boxes
            labels[row, : len(boxes)] = [
                names.index(categories.get(piece.model, ("unknown",))[0]) for piece in room.pieces
            ]
        return ArraySplit(furniture=furniture, furniture_label=labels)

    def _box(self, piece: Piece, source: Path) -> np.ndarray:
        """[7]: centre, size and angle of a piece as it stands; the model itself is read where the scene does not give its size."""
        if piece.size.any():
            low, high = (
                np.array([-0.5, 0, -0.5]) * piece.size,
                np.array([0.5, 1, 0.5]) * piece.size,
            )  # stands on its origin
        else:
            vertices = read_model(data_root() / self.future, piece.model, source).vertices
            low, high = vertices.min(axis=0), vertices.max(axis=0)
        centre = piece.rotation @ (piece.scale * (low + high) / 2) + piece.position
        return np.array([*centre, *np.abs(piece.scale * (high - low)), piece.angle])

    def _categories(self) -> dict[str, tuple[str, str]]:
        return read_categories(data_root() / self.future / "model_info.json")

    def _classes(self) -> tuple[str, ...]:
        return tuple(sorted({category for category, _ in self._categories().values()} | {"unknown"}))

    def _rooms(self, kind: str, split: str) -> list[tuple[Path, Room]]:
        """Rooms with two to ``max_pieces`` pieces of a sound scale, as ATISS keeps them."""
        missing = self.missing()
        if missing:
            raise DataError(missing)
        if kind not in self.kinds:
            raise DataError(f"there is no kind of room {kind!r}; choose of {', '.join(self.kinds)}")
        held_out = set(read_text(data_root() / self.test_list).split())
        houses = [
            p for p in sorted((data_root() / self.folder).glob("*.json")) if (p.stem in held_out) == (split == "test")
        ]
        words = KINDS.get(kind, (kind,))
        return [
            (path, room)
            for path in houses
            for room in read_house(path)
            if any(word in room.kind.lower() for word in words)
            and 2 <= len(room.pieces) <= self.max_pieces
            and all((np.abs(piece.scale) >= 1e-5).all() and (np.abs(piece.scale) <= 5).all() for piece in room.pieces)
        ]
