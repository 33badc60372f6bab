"""MNIST and what is laid out like it (Fashion-MNIST): four IDX files in one folder, plain or gzipped.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, 1998.
H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv 1708.07747, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats.idx import idx_shape, read_idx

FILES = {"train": "train", "test": "t10k"}  # the split's name in the names of its files
NAMES = tuple(f"{split}-{kind}" for split in FILES.values() for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))


@dataclass
class MNIST(Dataset):
    folder: str = "mnist"  # below the data root
    classes: tuple[str, ...] = tuple("0123456789")

    def missing(self) -> str | None:
        absent = [name for name in NAMES if not self._find(name).is_file()]
        if not absent:
            return None
        return f"put {', '.join(f'{name}.gz' for name in absent)} in {self.folder}/ below the data root ({data_root()})"

    def prepare(self) -> None:
        absent = self.missing()
        if absent:
            raise DataError(f"{self.folder} is not complete: {absent}")

    def sources(self) -> tuple[Path, ...]:
        return tuple(self._find(name) for name in NAMES)

    def schema(self, instance: str = "all") -> DataSchema:
        self.prepare()
        num_train, height, width = self._shape("train")
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=num_train,
            num_test=self._shape("test")[0],
            classes=tuple(self.classes),
            channels=1,
            image_size=(height, width),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        self.prepare()
        count, _, _ = self._shape(split)
        image = read_idx(self._find(f"{FILES[split]}-images-idx3-ubyte"))
        path = self._find(f"{FILES[split]}-labels-idx1-ubyte")
        label = read_idx(path)
        if label.shape != (count,) or image.dtype != np.uint8:
            raise DataError(f"{path} holds labels {label.shape} for {count} images; fetch both files again")
        if count and int(label.max()) >= len(self.classes):
            raise DataError(f"{path} holds label {label.max()}, but there are {len(self.classes)} classes")
        return ArraySplit(image=image[:, None], label=label.astype(np.int64))

    def _find(self, name: str) -> Path:
        """The plain file where there is one, else the gzipped one."""
        plain = data_root() / self.folder / name
        return plain if plain.is_file() else plain.with_name(f"{name}.gz")

    def _shape(self, split: str) -> tuple[int, int, int]:
        path = self._find(f"{FILES[split]}-images-idx3-ubyte")
        shape = idx_shape(path)
        if len(shape) != 3:
            raise DataError(f"{path} has {len(shape)} dimensions {shape}, not images [N, H, W]; fetch it again")
        return shape[0], shape[1], shape[2]
