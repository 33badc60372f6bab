"""Pairs of images side by side in one file, as published with pix2pix: facades, maps, edges to shoes.

P. Isola, J.-Y. Zhu, T. Zhou and A. Efros, Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.files import FileSplit, decoded, put_there
from adlbench.datasets.formats.images import list_images, read_image


@dataclass
class PairedImages(Dataset):
    """``source_right`` says which half is ``image``; the other is ``target_image``, what it is to be translated to."""

    folder: str = "facades"
    train: str = "train"
    test: str = "test"
    source_right: bool = True  # facades: label map on the right, photograph on the left
    in_memory: bool = True

    def missing(self) -> str | None:
        return put_there(self.folder, (self.train, self.test))

    def sources(self) -> tuple[Path, ...]:
        return tuple(file for split in ("train", "test") for file in self._files(split))

    def schema(self, instance: str = "all") -> DataSchema:
        train = self._files("train")
        height, width = read_pair(train[0])[0].shape[1:]
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "target_image"),
            num_train=len(train),
            num_test=len(self._files("test")),
            channels=3,
            image_size=(height, width),
        )

    def load(self, instance: str, split: str) -> Split:
        files = self._files(split)
        expected = read_pair(self._files("train")[0])[0].shape

        def decode(index: int) -> dict[str, np.ndarray]:
            left, right = read_pair(files[index])
            if left.shape != expected:
                raise DataError(
                    f"{files[index]} has halves of {left.shape[2]}x{left.shape[1]} pixels, others {expected[2]}x{expected[1]}"
                )
            source, target = (right, left) if self.source_right else (left, right)
            return {"image": source, "target_image": target}

        if self.in_memory:
            return decoded(len(files), decode)
        return FileSplit(len(files), decode, files, data_root() / self.folder, f"source_right={self.source_right}")

    def _files(self, split: str) -> list[Path]:
        missing = self.missing()
        if missing:
            raise DataError(f"{self.folder} is not complete: {missing}")
        folder = data_root() / self.folder / (self.train if split == "train" else self.test)
        files = list_images(folder)
        if not files:
            raise DataError(f"{folder} has no images; put the pairs there")
        return files


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right half of a file, uint8 [3, H, W / 2] each."""
    pixels = read_image(path)
    half, odd = divmod(pixels.shape[2], 2)
    if odd or not half:
        raise DataError(f"{path} is {pixels.shape[2]} pixels wide, which is not two images side by side")
    return np.ascontiguousarray(pixels[:, :, :half]), np.ascontiguousarray(pixels[:, :, half:])
