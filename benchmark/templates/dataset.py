"""NewDataset: images in one folder a class, the split as it was published.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root


@dataclass
class NewDataset(Dataset):
    """``<data root>/new_dataset/{train,test}/<class>/*.png``, all of one size."""

    folder: str = "new_dataset"  # below the data root

    def missing(self) -> str | None:
        if all(self._files(split) for split in ("train", "test")):
            return None
        return f"put train/<class>/*.png and test/<class>/*.png into {self._root}"

    def schema(self, instance: str = "all") -> DataSchema:
        train, test = self._files("train"), self._files("test")
        if not train or not test:
            raise DataError(f"{self.folder} is not here: {self.missing()}")
        channels, height, width = read_image(train[0]).shape
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=len(train),
            num_test=len(test),
            classes=self._classes(),
            channels=channels,
            image_size=(height, width),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        files, classes = self._files(split), self._classes()
        images = [read_image(path) for path in files]
        for path, image in zip(files, images):
            if image.shape != images[0].shape:
                raise DataError(
                    f"{path} is {image.shape}, and {files[0]} is {images[0].shape}; resize them to one size"
                )
        label = np.array([classes.index(path.parent.name) for path in files], dtype=np.int64)
        return ArraySplit(image=np.stack(images), label=label)

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _classes(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (self._root / "train").iterdir() if path.is_dir()))

    def _files(self, split: str) -> list[Path]:
        return sorted((self._root / split).glob("*/*.png"))


def read_image(path: Path) -> np.ndarray:
    """uint8 [3, H, W]."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} is no image that can be read ({error}); fetch it again") from error
