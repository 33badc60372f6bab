"""NewMethod: a labeller of points to start from. Replace ``network`` by your own.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.supervised import SupervisedMethod


class PointLabeller(nn.Module):
    """Every point is judged by its own features and the maximum of all points': [B, P, 3] to [B, P, K]."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.point = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.judge = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
        )

    def forward(self, points: Tensor) -> Tensor:
        local = self.point(points)
        whole = local.amax(1, keepdim=True).expand_as(local)
        scores: Tensor = self.judge(torch.cat([local, whole], dim=-1))
        return scores


@dataclass(eq=False, kw_only=True)
class NewMethod(SupervisedMethod):
    """The fields are the hyperparameters; name them as the paper does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.SEGMENTATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})
    target: ClassVar[str] = "point_label"

    width: int = 128

    def network(self, schema: DataSchema) -> nn.Module:
        return PointLabeller(self.width, len(schema.parts))

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        scores: Tensor = net(batch["points"])  # [B, P, K]
        return scores
