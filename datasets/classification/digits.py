"""Handwritten digits, 8x8 pixels, that come with scikit-learn.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998. The 1,797
digits are UCI's test set; its training digits are not included. The first 80 % serve for training and the last 20 % for
testing, in the official order. Neighbouring digits are by the same writer, so a random split would be easier than this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataSchema, Dataset, Modality

NUM_ITEMS = 1797
NUM_TRAIN = 1437  # the first of them in the official order; never re-drawn


@dataclass
class Digits(Dataset):
    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=NUM_TRAIN,
            num_test=NUM_ITEMS - NUM_TRAIN,
            classes=tuple("0123456789"),
            channels=1,
            image_size=(8, 8),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        from sklearn.datasets import load_digits

        digits = load_digits()
        part = slice(None, NUM_TRAIN) if split == "train" else slice(NUM_TRAIN, None)
        image = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)  # 4-bit counts 0..16
        return ArraySplit(image=image[:, None], label=digits.target[part].astype(np.int64))
