"""NewMethod: a classifier of point clouds to start from. Replace ``network`` by your own.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.points import jitter
from adlbench.methods.base.supervised import SupervisedMethod


class PointNetwork(nn.Module):
    """The same network at every point, the maximum over the points, a network on that: [B, P, 3] to [B, K]."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.point = nn.Sequential(
            nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4 * width)
        )
        self.cloud = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, outputs))

    def forward(self, points: Tensor) -> Tensor:
        scores: Tensor = self.cloud(self.point(points).amax(1))
        return scores


@dataclass(eq=False, kw_only=True)
class NewMethod(SupervisedMethod):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})

    width: int = 64

    def network(self, schema: DataSchema) -> nn.Module:
        return PointNetwork(self.width, len(schema.classes))

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        scores: Tensor = net(batch["points"])  # [B, K]
        return scores

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {**batch, "points": jitter(batch["points"], 0.01, 0.05, generator)}
