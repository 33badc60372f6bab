"""CamVid: road scenes with a class for every pixel, in the layout and with the eleven classes of SegNet.

G. Brostow, J. Fauqueur and R. Cipolla, Semantic object classes in video, Pattern Recognition Letters 30, 2009.
V. Badrinarayanan, A. Kendall and R. Cipolla, SegNet, PAMI 39, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import decoded, put_there
from adlbench.datasets.formats.images import image_size, read_image, read_indices
from adlbench.datasets.formats.lists import read_segnet_list

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
UNLABELLED = len(CLASSES)  # in the files; 255 here


@dataclass
class CamVid(Dataset):
    """``train.txt`` for training and ``test.txt`` for testing, as published; ``val.txt`` is not used."""

    folder: str = "CamVid"

    def missing(self) -> str | None:
        return put_there(self.folder, ("train.txt", "test.txt", "train", "trainannot", "test", "testannot"))

    def sources(self) -> tuple[Path, ...]:
        lists = tuple(data_root() / self.folder / f"{split}.txt" for split in ("train", "test"))
        return lists + tuple(file for split in ("train", "test") for pair in self._pairs(split) for file in pair)

    def schema(self, instance: str = "all") -> DataSchema:
        pairs = self._pairs("train")
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "mask"),
            num_train=len(pairs),
            num_test=len(self._pairs("test")),
            classes=CLASSES,
            channels=3,
            image_size=image_size(pairs[0][0]),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        pairs = self._pairs(split)
        expected = image_size(self._pairs("train")[0][0])

        def decode(index: int) -> dict[str, np.ndarray]:
            image, mask = read_image(pairs[index][0]), read_indices(pairs[index][1])
            for path, shape in zip(pairs[index], (image.shape[1:], mask.shape)):
                if shape != expected:
                    raise DataError(f"{path} is {shape[1]}x{shape[0]} pixels, others {expected[1]}x{expected[0]}")
            if int(mask.max()) > UNLABELLED:
                raise DataError(f"{pairs[index][1]} has label {mask.max()}; there are 0 to {UNLABELLED}")
            return {"image": image, "mask": np.where(mask == UNLABELLED, np.uint8(255), mask)}

        return decoded(len(pairs), decode)

    def _pairs(self, split: str) -> list[tuple[Path, Path]]:
        missing = self.missing()
        if missing:
            raise DataError(f"CamVid is not complete: {missing}")
        return read_segnet_list(data_root() / self.folder / f"{split}.txt")
