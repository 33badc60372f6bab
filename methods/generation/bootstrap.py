"""Training images, drawn with replacement: perfect samples and no model.

Its distance to the test images is what the finite sets and the difference between training and test data leave. Nothing
that generates has to be better, and what is about as good deserves a look at its nearest training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, Context, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit


@dataclass(eq=False, kw_only=True)
class TrainingBootstrap(Method):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.GENERATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    max_images: int = 20_000  # that are kept, and saved with the state; a random subset of the training images

    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context, self.train = data.schema, context, data.train
        self.images = torch.zeros(0, data.schema.channels, *data.schema.image_size, dtype=torch.uint8)

    def step(self) -> Mapping[str, Tensor]:
        order = np.random.default_rng(self.context.seed("bootstrap")).permutation(len(self.train))
        self.images = self.train.batch(np.sort(order[: self.max_images]))["image"]
        self.context.count(len(self.images))
        return {"images": torch.tensor(float(len(self.images)))}

    def predictor(self) -> BootstrapPredictor:
        if len(self.images) == 0:
            raise AdlbenchError("the training bootstrap has not made its step; give it a budget of at least one")
        return BootstrapPredictor(self.images, self.context.device)


class BootstrapPredictor:
    def __init__(self, images: Tensor, device: torch.device):
        self.images, self.device = images, device

    def sample(self, n: int, seed: int) -> Tensor:
        index = torch.randint(len(self.images), (n,), generator=torch.Generator().manual_seed(seed))
        return to_unit(self.images[index]).to(self.device)
