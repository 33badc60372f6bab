"""CelebA: aligned photographs of celebrities with forty attributes each.

Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.files import FileSplit, decoded, put_there
from adlbench.datasets.formats.images import read_image
from adlbench.datasets.formats.lists import CelebAttributes, read_celeba_attributes, read_celeba_partition

PARTS = {"train": 0, "test": 2}  # as list_eval_partition.txt numbers them; 1 is for validation


@dataclass
class CelebA(Dataset):
    """The middle square of each 178x218 photograph. ``attribute`` names the one that ``label`` tells: 0 without, 1 with."""

    folder: str = "celeba"
    images: str = "img_align_celeba"
    size: int = 64  # pixels a side
    attribute: str = "Smiling"
    in_memory: bool = False

    def missing(self) -> str | None:
        return put_there(self.folder, ("list_attr_celeba.txt", "list_eval_partition.txt", self.images))

    def sources(self) -> tuple[Path, ...]:
        attributes = self._attributes()
        lists = tuple(self._root / name for name in ("list_attr_celeba.txt", "list_eval_partition.txt"))
        return lists + tuple(
            self._root / self.images / attributes.files[row] for split in PARTS for row in self._rows(split, attributes)
        )

    def schema(self, instance: str = "all") -> DataSchema:
        attributes = self._attributes()
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label", "attributes"),
            num_train=len(self._rows("train", attributes)),
            num_test=len(self._rows("test", attributes)),
            classes=(f"not {self.attribute}", self.attribute),
            attributes=attributes.names,
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> Split:
        attributes = self._attributes()
        rows = self._rows(split, attributes)
        files = [self._root / self.images / attributes.files[row] for row in rows]
        values = attributes.values[rows]
        arrays = {"attributes": values, "label": values[:, attributes.names.index(self.attribute)].astype(np.int64)}

        def decode(index: int) -> dict[str, np.ndarray]:
            return {"image": read_image(files[index], self.size)}

        if self.in_memory:
            return decoded(len(files), decode, **arrays)
        return FileSplit(len(files), decode, files, self._root, f"size={self.size}", **arrays)

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _attributes(self) -> CelebAttributes:
        missing = self.missing()
        if missing:
            raise DataError(f"CelebA is not complete: {missing}")
        attributes = read_celeba_attributes(self._root / "list_attr_celeba.txt")
        if self.attribute not in attributes.names:
            raise DataError(f"attribute={self.attribute}: there is none of that name; {', '.join(attributes.names)}")
        return attributes

    def _rows(self, split: str, attributes: CelebAttributes) -> np.ndarray:
        path = self._root / "list_eval_partition.txt"
        partition = read_celeba_partition(path)
        absent = next((file for file in attributes.files if file not in partition), None)
        if absent is not None:
            raise DataError(f"{path} does not say to which part {absent} belongs; fetch it again")
        rows = np.array(
            [row for row, file in enumerate(attributes.files) if partition[file] == PARTS[split]], dtype=np.int64
        )
        if not len(rows):
            raise DataError(f"{path} has no image for the {split} split; fetch it again")
        return rows
