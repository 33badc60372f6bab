"""The ORL (AT&T) faces: ten grey photographs of each of forty people, 92x112 pixels, in folders of PGM files.

F. Samaria and A. Harter, Parameterisation of a stochastic model for human face identification, WACV 1994.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import decoded
from adlbench.datasets.formats.images import in_order, list_classes, list_images, read_image


@dataclass
class OrlFaces(Dataset):
    """The people of the test split do not occur in training: who is the same person must be told of strangers.

    Reads ``training/`` and ``testing/`` with a folder for each person, or the archive's own ``s1`` ... ``s40``, of which
    ``strangers`` are then tested. ``label`` counts all people, in the order of their numbers.
    """

    folder: str = "orl_faces"
    strangers: tuple[str, ...] = field(default=("s5", "s6", "s7"))

    def missing(self) -> str | None:
        people = self._people()
        if people["train"] and people["test"]:
            return None
        return f"put the folders s1 ... s40 of PGM files in {self.folder}/ below the data root ({data_root()})"

    def sources(self) -> tuple[Path, ...]:
        return tuple(file for split in ("train", "test") for file, _ in self._files(split))

    def schema(self, instance: str = "all") -> DataSchema:
        files = {split: self._files(split) for split in ("train", "test")}
        shape = read_image(files["train"][0][0], grey=True).shape
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=len(files["train"]),
            num_test=len(files["test"]),
            classes=self._names(),
            channels=1,
            image_size=(shape[1], shape[2]),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        files = self._files(split)
        expected = read_image(self._files("train")[0][0], grey=True).shape

        def decode(index: int) -> dict[str, np.ndarray]:
            image = read_image(files[index][0], grey=True)
            if image.shape != expected:
                raise DataError(
                    f"{files[index][0]} is {image.shape[2]}x{image.shape[1]} pixels, others {expected[2]}x{expected[1]}"
                )
            return {"image": image}

        return decoded(len(files), decode, label=np.array([label for _, label in files], dtype=np.int64))

    def _people(self) -> dict[str, list[Path]]:
        root = data_root() / self.folder
        if (root / "training").is_dir() and (root / "testing").is_dir():
            return {
                split: [root / part / name for name in list_classes(root / part)]
                for split, part in (("train", "training"), ("test", "testing"))
            }
        people = [root / name for name in (list_classes(root) if root.is_dir() else ())]
        return {
            "train": [person for person in people if person.name not in self.strangers],
            "test": [person for person in people if person.name in self.strangers],
        }

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted((person.name for people in self._people().values() for person in people), key=in_order))

    def _files(self, split: str) -> list[tuple[Path, int]]:
        missing = self.missing()
        if missing:
            raise DataError(f"the ORL faces are not complete: {missing}")
        names = self._names()
        twice = next((name for name, other in pairwise(names) if name == other), None)
        if twice is not None:
            raise DataError(
                f"{data_root() / self.folder}: {twice} is in training/ and in testing/; a person belongs to one"
            )
        files = []
        for person in self._people()[split]:
            images = list_images(person)
            if not images:
                raise DataError(f"{person} has no images; put that person's there, or remove the folder")
            files += [(image, names.index(person.name)) for image in images]
        return files
