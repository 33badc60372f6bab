"""Objaverse: objects that users of Sketchfab published (Deitke et al. 2023), those that have been downloaded."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.objaverse import Objects, read_objects
from adlbench.datasets.meshes.mesh_set import Entry, MeshSet


@dataclass
class Objaverse(MeshSet):
    """No official split exists: an object is for testing when the CRC-32 of its identifier is divisible by ``hold_out``, which
    does not change with what else has been downloaded. Labels are LVIS classes, where annotated; the others are "unlabelled"."""

    folder: str = "hf-objaverse-v1"
    hold_out: int = 10
    labelled: bool = False  # only objects with an LVIS class

    def missing(self) -> str | None:
        if (self.root / "object-paths.json.gz").is_file():
            return None
        return f"download objects with the package objaverse and put its folder hf-objaverse-v1 at {self.root}"

    def classes(self) -> tuple[str, ...]:
        return self._classes(self._objects())

    def entries(self, split: str) -> list[Entry]:
        objects = self._objects()
        names = self._classes(objects)
        chosen = [
            (path, names.index(objects.classes.get(uid, names[0])))
            for uid, path in objects.paths.items()
            if (zlib.crc32(uid.encode()) % self.hold_out == 0) == (split == "test")
            and (not self.labelled or uid in objects.classes)
        ]
        if not chosen:
            raise DataError(
                f"{self.root} has {len(objects.paths)} objects and none for the {split} split; download more"
            )
        return chosen

    def _objects(self) -> Objects:
        missing = self.missing()
        if missing:
            raise DataError(missing)
        return read_objects(self.root)

    def _classes(self, objects: Objects) -> tuple[str, ...]:
        return ("unlabelled", *sorted(set(objects.classes.values())))
