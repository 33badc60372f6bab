"""Flickr8k: photographs with five sentences each.

M. Hodosh, P. Young and J. Hockenmaier, Framing Image Description as a Ranking Task, JAIR 47, 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, Split, data_root
from adlbench.datasets.files import FileSplit, decoded
from adlbench.datasets.formats.images import list_images, read_image
from adlbench.datasets.formats.lists import padded_captions, read_captions, read_names

IMAGES = ("Images", "Flicker8k_Dataset")  # on Kaggle, and as published (with that spelling)
CAPTIONS = ("captions.txt", "Flickr8k.token.txt")
LISTS = {"train": "Flickr_8k.trainImages.txt", "test": "Flickr_8k.testImages.txt"}


@dataclass
class Flickr8k(Dataset):
    """The authors' lists say which photographs are for training and for testing.

    ``held_out`` is for a folder that holds only some of the photographs and no lists: the last so many by name are tested.
    """

    folder: str = "flickr8k"
    size: int = 224  # pixels a side: the shorter side is scaled to it and the middle kept
    held_out: int = 0
    in_memory: bool = False

    def missing(self) -> str | None:
        absent = [" or ".join(names) for names in (IMAGES, CAPTIONS) if self._find(names) is None]
        if not self.held_out:
            absent += [name for name in LISTS.values() if not (self._root / name).is_file()]
        return f"put {', '.join(absent)} in {self.folder}/ below the data root ({data_root()})" if absent else None

    def sources(self) -> tuple[Path, ...]:
        lists = () if self.held_out else tuple(self._root / name for name in LISTS.values())
        files = tuple(file for split in ("train", "test") for file in self._files(split))
        return (self._captions_file(), *lists, *files)

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "captions"),
            num_train=len(self._files("train")),
            num_test=len(self._files("test")),
            channels=3,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> Split:
        files = self._files(split)
        captions = read_captions(self._captions_file())
        absent = next((file.name for file in files if file.name not in captions), None)
        if absent is not None:
            raise DataError(f"{self._captions_file()} has no sentence for {absent}; fetch it again")
        array = padded_captions([captions[file.name] for file in files])

        def decode(index: int) -> dict[str, np.ndarray]:
            return {"image": read_image(files[index], self.size)}

        if self.in_memory:
            return decoded(len(files), decode, captions=array)
        return FileSplit(len(files), decode, files, self._root, f"size={self.size}", captions=array)

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _find(self, names: tuple[str, ...]) -> Path | None:
        return next((path for name in names if (path := self._root / name).exists()), None)

    def _captions_file(self) -> Path:
        path = self._find(CAPTIONS)
        if path is None:
            raise DataError(f"Flickr8k is not complete: {self.missing()}")
        return path

    def _files(self, split: str) -> list[Path]:
        missing, folder = self.missing(), self._find(IMAGES)
        if missing or folder is None:
            raise DataError(f"Flickr8k is not complete: {missing}")
        if not self.held_out:
            return [folder / name for name in read_names(self._root / LISTS[split])]
        files = list_images(folder)
        if len(files) <= self.held_out:
            raise DataError(
                f"{folder} has {len(files)} images, of which held_out={self.held_out} leaves none for training"
            )
        return files[: -self.held_out] if split == "train" else files[-self.held_out :]
