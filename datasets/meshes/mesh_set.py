"""What datasets of single meshes share: the items of a split as meshes, or as points drawn from their surfaces."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.files import FileSplit
from adlbench.datasets.formats.meshes import Mesh, read_mesh, sample_surface
from adlbench.datasets.points import unit_sphere

Entry = tuple[Path, int]  # the file and its label


class MeshSplit(FileSplit):
    """Meshes of different sizes: a batch is filled up to its largest, vertices with zeros and faces with -1."""

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        index = np.asarray(indices, dtype=np.int64)
        items = [self._decode(int(i)) for i in index]
        fields: dict[str, Tensor] = {}
        for name, filling in (("vertices", 0), ("faces", -1)):
            longest = max((len(item[name]) for item in items), default=0)
            kind = np.float32 if name == "vertices" else np.int64
            padded = np.full((len(items), longest, 3), filling, dtype=kind)
            for row, item in zip(padded, items):
                row[: len(item[name])] = item[name]
            fields[name] = torch.from_numpy(padded)
        return fields | {name: value[torch.from_numpy(index)] for name, value in self._arrays.items()}


@dataclass
class MeshSet(Dataset):
    """``representation`` is "points" (with normals, in the unit sphere) or "mesh" (as it is in the file)."""

    folder: str = ""
    representation: str = "points"
    num_points: int = 2048
    normalise: bool = True  # points only

    @abstractmethod
    def entries(self, split: str) -> list[Entry]:
        """Files and labels of a split. Raises DataError when there are none."""

    @abstractmethod
    def classes(self) -> tuple[str, ...]: ...

    @property
    def root(self) -> Path:
        return data_root() / self.folder

    def sources(self) -> tuple[Path, ...]:
        return tuple(path for split in ("train", "test") for path, _ in self.entries(split))

    def schema(self, instance: str = "all") -> DataSchema:
        if self.representation not in {"points", "mesh"}:
            raise DataError(f"representation is {self.representation!r}; it must be points or mesh")
        points = self.representation == "points"
        return DataSchema(
            modality=Modality.POINTS if points else Modality.MESH,
            fields=("points", "normals", "label") if points else ("vertices", "faces", "label"),
            num_train=len(self.entries("train")),
            num_test=len(self.entries("test")),
            classes=self.classes(),
            num_points=self.num_points if points else 0,
        )

    def load(self, instance: str, split: str) -> Split:
        entries = self.entries(split)
        files, labels = [path for path, _ in entries], np.array([label for _, label in entries], dtype=np.int64)
        if self.schema(instance).modality is Modality.MESH:
            return MeshSplit(
                len(files), lambda index: _fields(read_mesh(files[index])), files, self.root, "mesh", label=labels
            )
        recipe = f"{self.num_points} {self.normalise}"
        return FileSplit(len(files), lambda index: self._points(files[index]), files, self.root, recipe, label=labels)

    def _points(self, path: Path) -> dict[str, np.ndarray]:
        seed = zlib.crc32(path.relative_to(self.root).as_posix().encode())
        points, normals = sample_surface(read_mesh(path), self.num_points, seed, path)
        return {"points": unit_sphere(points) if self.normalise else points, "normals": normals}


def _fields(mesh: Mesh) -> dict[str, np.ndarray]:
    return {"vertices": mesh.vertices.astype(np.float32), "faces": mesh.faces}
