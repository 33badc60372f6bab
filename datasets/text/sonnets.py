"""Some of Shakespeare's sonnets, the text that the package brings along.

W. Shakespeare, Shake-speares Sonnets, London 1609: in the public domain everywhere. Modern spelling, typed for this package
without any edition's notes; each sonnet under its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality

FILE = Path(__file__).with_name("sonnets.txt")


@dataclass
class Sonnets(Dataset):
    """Windows of ``length`` + 1 characters that overlap by one: each character but the first is predicted exactly once.

    The last ``test_share`` of the text is tested on. What is left at the end of a part and fills no window is not used.
    """

    length: int = 64  # characters
    test_share: float = 0.12

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.TEXT,
            fields=("tokens",),
            num_train=len(self._windows("train")),
            num_test=len(self._windows("test")),
            vocabulary=vocabulary(),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        return ArraySplit(tokens=self._windows(split))

    def _windows(self, split: str) -> np.ndarray:
        """int64 [N, length + 1]."""
        content = text()
        end = int(len(content) * (1 - self.test_share))
        part = content[:end] if split == "train" else content[end:]
        count = (len(part) - 1) // self.length if self.length > 0 else 0
        if count < 1:
            raise DataError(
                f"length={self.length}, test_share={self.test_share}: the {split} text has {len(part):,} characters; "
                "it must fill at least one window of at least one character"
            )
        place = {character: index for index, character in enumerate(vocabulary())}
        indices = np.array([place[character] for character in part], dtype=np.int64)
        return np.stack([indices[i * self.length : (i + 1) * self.length + 1] for i in range(count)])


@cache
def text() -> str:
    return FILE.read_text(encoding="utf-8")


@cache
def vocabulary() -> tuple[str, ...]:
    return tuple(sorted(set(text())))
