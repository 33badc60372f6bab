"""NewMethod: a convolutional classifier to start from. Replace ``network`` by your own.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.images import normalise, random_affine
from adlbench.methods.base.supervised import SupervisedMethod


@dataclass(eq=False, kw_only=True)
class NewMethod(SupervisedMethod):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    width: int = 32  # channels of the first stage

    def network(self, schema: DataSchema) -> nn.Module:
        layers: list[nn.Module] = []
        channels = schema.channels
        for width in (self.width, 2 * self.width, 4 * self.width):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
            channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(schema.classes)))

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        scores: Tensor = net(normalise(batch["image"]))  # [B, K]
        return scores

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {**batch, "image": random_affine(batch["image"], generator, degrees=10.0, scale=0.1, shift=0.5)}
