"""Any folder of images sorted into folders by class: ``PATH/train/CLASS/*.png`` and ``PATH/test/CLASS/*.png``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.files import FileSplit, decoded
from adlbench.datasets.formats.images import SUFFIXES, list_classes, list_images, read_image


@dataclass
class ImageFolder(Dataset):
    """Classes are the folders of the training split, by name. Images are uint8, read into memory or when asked for."""

    path: str = "images"  # below the data root, or absolute
    train: str = "train"  # the folder of that split
    test: str = "test"
    size: int = 0  # pixels a side: the shorter side is scaled to it and the middle kept; 0 leaves images as they are
    grey: bool = False  # one channel instead of three
    in_memory: bool = True  # false: decode each image whenever it is asked for

    def missing(self) -> str | None:
        if (self._root / self.train).is_dir() and (self._root / self.test).is_dir():
            return None
        return f"put images into {self._root}/{self.train}/CLASS/ and {self._root}/{self.test}/CLASS/"

    def prepare(self) -> None:
        absent = self.missing()
        if absent:
            raise DataError(f"the image folder is not complete: {absent}")

    def schema(self, instance: str = "all") -> DataSchema:
        classes = self._classes()
        files = self._files("train", classes)
        first = read_image(files[0][0], self.size, self.grey)
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=len(files),
            num_test=len(self._files("test", classes)),
            classes=classes,
            channels=first.shape[0],
            image_size=(first.shape[1], first.shape[2]),
        )

    def sources(self) -> tuple[Path, ...]:
        classes = self._classes()
        return tuple(file for split in ("train", "test") for file, _ in self._files(split, classes))

    def load(self, instance: str, split: str) -> Split:
        classes = self._classes()
        if split == "train" and len(classes) == 1:
            warnings.warn(
                f"{self._root}/{self.train} has one class only ({classes[0]}): every classifier is right there; "
                "put each class in a folder of its own",
                stacklevel=2,
            )
        files = self._files(split, classes)
        label = np.array([label for _, label in files], dtype=np.int64)
        expected = read_image(self._files("train", classes)[0][0], self.size, self.grey).shape

        def decode(index: int) -> dict[str, np.ndarray]:
            file = files[index][0]
            image = read_image(file, self.size, self.grey)
            if image.shape != expected:
                raise DataError(
                    f"{file} is {image.shape[2]}x{image.shape[1]} pixels and the first image of the folder "
                    f"{expected[2]}x{expected[1]}; set the parameter 'size' to bring all images to one size"
                )
            return {"image": image}

        if self.in_memory:
            return decoded(len(files), decode, label=label)
        recipe = f"size={self.size} grey={self.grey}"
        return FileSplit(len(files), decode, [file for file, _ in files], self._root, recipe, label=label)

    @property
    def _root(self) -> Path:
        return data_root() / self.path

    def _classes(self) -> tuple[str, ...]:
        self.prepare()
        classes = list_classes(self._root / self.train)
        if not classes:
            raise DataError(f"{self._root / self.train} has no folders; put the images of each class in one")
        unknown = sorted(set(list_classes(self._root / self.test)) - set(classes))
        if unknown:
            raise DataError(
                f"{self._root / self.test} has classes without training images: {', '.join(unknown)}; "
                f"known are {', '.join(classes)}"
            )
        return classes

    def _files(self, split: str, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
        """Files and labels, by class, then by name."""
        root = self._root / (self.train if split == "train" else self.test)
        found: list[tuple[Path, int]] = []
        for label, name in enumerate(classes):
            images = list_images(root / name)
            if split == "train" and not images:
                raise DataError(
                    f"{root / name} has no images ({' '.join(SUFFIXES)}); put some there or remove the folder"
                )
            found += [(image, label) for image in images]
        if not found:
            raise DataError(
                f"{root} has no images ({' '.join(SUFFIXES)}) in the folders of its classes; put some there"
            )
        return found
