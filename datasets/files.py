"""Datasets that are many files: decoded once into memory, or whenever an item is asked for where they are too large."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import ArraySplit, Split, data_root

WORKERS = 2  # threads that decode; Pillow's decoders release the interpreter lock


class FileSplit(Split):
    """``decode(index)`` gives the fields of one item that lie in files; ``arrays`` are the fields of all items that do not.

    ``sources`` and ``recipe`` (how the files are decoded) stand for the items in the fingerprint, which then reads bytes
    and decodes nothing. Files enter it by their names relative to ``root``.
    """

    def __init__(
        self,
        length: int,
        decode: Callable[[int], Mapping[str, np.ndarray]],
        sources: Sequence[Path],
        root: Path,
        recipe: str,
        **arrays: np.ndarray,
    ):
        self._length, self._decode = length, decode
        self._sources, self._root, self._recipe = tuple(sources), root, recipe
        self._arrays = {name: torch.as_tensor(value) for name, value in arrays.items()}

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        index = np.asarray(indices, dtype=np.int64)
        with ThreadPoolExecutor(WORKERS) as pool:
            items = list(pool.map(self._decode, index.tolist()))
        names = items[0] if items else ()
        decoded = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in names}
        return decoded | {name: value[torch.from_numpy(index)] for name, value in self._arrays.items()}

    def feed(self, digest: hashlib._Hash, name: str, file_digest: Callable[[Path], str]) -> None:
        digest.update(f"{name} {self._length} {self._recipe}".encode())
        for path in self._sources:
            digest.update(f"{path.relative_to(self._root)} {file_digest(path)}".encode())
        for field, value in sorted(self._arrays.items()):
            digest.update(f"{name}/{field} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(np.ascontiguousarray(value.numpy()).data)


def decoded(length: int, decode: Callable[[int], Mapping[str, np.ndarray]], **arrays: np.ndarray) -> ArraySplit:
    """The same items, decoded once and kept in memory. ``decode`` gives every item in the same shapes."""
    fields: dict[str, np.ndarray] = {}
    for index in range(length):
        for name, value in decode(index).items():
            if index == 0:
                fields[name] = np.empty((length, *value.shape), dtype=value.dtype)
            fields[name][index] = value
    return ArraySplit(**fields, **arrays)


def put_there(folder: str, names: Sequence[str]) -> str | None:
    """One line that says which of ``names`` are to be put into ``folder`` below the data root; None when all are there."""
    absent = [name for name in names if not (data_root() / folder / name).exists()]
    return f"put {', '.join(absent)} in {folder}/ below the data root ({data_root()})" if absent else None
