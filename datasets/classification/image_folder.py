"""Any folder of images sorted into folders by class: ``PATH/train/CLASS/*.png`` and ``PATH/test/CLASS/*.png``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root

SUFFIXES = (".jpeg", ".jpg", ".pgm", ".png", ".ppm")


@dataclass
class ImageFolder(Dataset):
    """Classes are the folders of the training split, by name. Images are read into memory, as uint8."""

    path: str = "images"  # below the data root, or absolute
    train: str = "train"  # the folder of that split
    test: str = "test"
    size: int = 0  # pixels a side: the shorter side is scaled to it and the middle kept; 0 leaves images as they are
    grey: bool = False  # one channel instead of three

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

    def load(self, instance: str, split: str) -> ArraySplit:
        classes = self._classes()
        if split == "train" and len(classes) == 1:
            warnings.warn(
                f"{self._root}/{self.train} has one class only ({classes[0]}): every classifier is right there; "
                "put each class in a folder of its own",
                stacklevel=2,
            )
        files = self._files(split, classes)
        expected = read_image(self._files("train", classes)[0][0], self.size, self.grey).shape
        images = np.empty((len(files), *expected), dtype=np.uint8)
        for index, (file, _) in enumerate(files):
            image = read_image(file, self.size, self.grey)
            if image.shape != expected:
                raise DataError(
                    f"{file} is {image.shape[2]}x{image.shape[1]} pixels and the first image of the folder "
                    f"{expected[2]}x{expected[1]}; set the parameter 'size' to bring all images to one size"
                )
            images[index] = image
        return ArraySplit(image=images, label=np.array([label for _, label in files], dtype=np.int64))

    @property
    def _root(self) -> Path:
        return data_root() / self.path

    def _classes(self) -> tuple[str, ...]:
        self.prepare()
        classes = _folders(self._root / self.train)
        if not classes:
            raise DataError(f"{self._root / self.train} has no folders; put the images of each class in one")
        unknown = sorted(set(_folders(self._root / self.test)) - set(classes))
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
            files = sorted((root / name).iterdir()) if (root / name).is_dir() else []
            images = [f for f in files if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
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


def _folders(path: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def read_image(path: Path, size: int = 0, grey: bool = False) -> np.ndarray:
    """uint8 [1 or 3, H, W]. Raises DataError when the file is truncated or no image."""
    try:
        with Image.open(path) as opened:
            opened.load()
            image = opened if not opened.mode.startswith("I") else _eight_bits(opened)
            image = image.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace or remove the file") from error
    if size:
        image = _middle_square(image, size)
    pixels = np.asarray(image)
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, the upper byte of it; Pillow's own conversion would clip at 255."""
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))


def _middle_square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)  # Pillow's resize does not alias
