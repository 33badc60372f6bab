"""Stripes in four directions under noise, made from a seed."""

from dataclasses import dataclass

import numpy as np

from adlbench import ArraySplit, DataSchema, Dataset, Modality

DIRECTIONS = {"horizontal": (0, 1), "vertical": (1, 0), "rising": (1, 1), "falling": (1, -1)}


@dataclass
class Stripes(Dataset):
    num_train: int = 800
    num_test: int = 200
    size: int = 12
    noise: float = 60.0  # standard deviation, grey levels

    def schema(self, instance="all"):
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "label"),
            num_train=self.num_train,
            num_test=self.num_test,
            classes=tuple(DIRECTIONS),
            channels=1,
            image_size=(self.size, self.size),
        )

    def load(self, instance, split):
        count, seed = (self.num_train, 0) if split == "train" else (self.num_test, 1)
        rng = np.random.default_rng(seed)
        label = np.arange(count) % len(DIRECTIONS)
        direction = np.array(list(DIRECTIONS.values()))[label]
        position = np.indices((self.size, self.size)).reshape(2, -1)  # row, column
        phase = direction[:, ::-1] @ position + rng.uniform(0, 4, (count, 1))
        grey = 128 + 80 * np.sin(phase * np.pi / 2) + self.noise * rng.standard_normal(phase.shape)
        image = grey.clip(0, 255).astype(np.uint8).reshape(count, 1, self.size, self.size)
        return ArraySplit(image=image, label=label)
