"""Plain text as a sequence of tokens, characters or words, cut into windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats.text import UNKNOWN, characters, encode, read_text, words


@dataclass
class TextFile(Dataset):
    """Windows of ``length`` + 1 tokens that overlap by one: each token but the first is predicted exactly once.

    What is left at the end and does not fill a window is not used. Without a ``test`` file, the last ``test_share`` of
    the text is tested on. Characters are those of the whole text; words are those of the training text, most frequent
    first, and ``<unk>`` for all others.
    """

    folder: str = "tinyshakespeare"
    train: tuple[str, ...] = ("input.txt",)  # the file; where several names are in use, the first that is there
    test: tuple[str, ...] = ()
    test_share: float = 0.1  # of the characters or words, when there is no file for the test
    unit: Literal["characters", "words"] = "characters"
    length: int = 256  # tokens

    def missing(self) -> str | None:
        absent = [names[0] for names in (self.train, self.test) if names and self._find(names) is None]
        if not absent:
            return None
        return f"put {', '.join(absent)} in {self.folder}/ below the data root ({data_root()})"

    def sources(self) -> tuple[Path, ...]:
        return tuple(path for names in (self.train, self.test) if names and (path := self._find(names)) is not None)

    def schema(self, instance: str = "all") -> DataSchema:
        tokens = {split: self._tokens(split) for split in ("train", "test")}
        return DataSchema(
            modality=Modality.TEXT,
            fields=("tokens",),
            num_train=(len(tokens["train"]) - 1) // self.length,
            num_test=(len(tokens["test"]) - 1) // self.length,
            vocabulary=self._vocabulary(),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        tokens = self._tokens(split)
        place = {token: index for index, token in enumerate(self._vocabulary())}
        count = (len(tokens) - 1) // self.length
        if count < 1:
            raise DataError(
                f"{self.folder}: the {split} text has {len(tokens):,} {self.unit}, too few for length={self.length}"
            )
        indices = encode(tokens, place, f"{self.folder}, {split} text")
        windows = np.lib.stride_tricks.sliding_window_view(indices, self.length + 1)[:: self.length]
        return ArraySplit(tokens=windows[:count].copy())

    def _vocabulary(self) -> tuple[str, ...]:
        if self.unit == "characters":
            return characters("".join("".join(self._tokens(split)) for split in ("train", "test")))
        counts = Counter(self._tokens("train"))
        counts.setdefault(UNKNOWN, 0)
        return tuple(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def _tokens(self, split: str) -> str | list[str]:
        names = self.test if split == "test" and self.test else self.train
        path = self._find(names)
        if path is None:
            raise DataError(f"{self.folder} is not complete: {self.missing()}")
        text = read_text(path)
        tokens: str | list[str] = text if self.unit == "characters" else words(text)
        if not self.test:
            end = int(len(tokens) * (1 - self.test_share))
            tokens = tokens[:end] if split == "train" else tokens[end:]
        return tokens

    def _find(self, names: tuple[str, ...]) -> Path | None:
        return next((path for name in names if (path := data_root() / self.folder / name).is_file()), None)
