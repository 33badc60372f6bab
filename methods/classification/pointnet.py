"""PointNet for classification.

Qi, Su, Mo, Guibas: PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation. CVPR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.points import choose_points, jitter, rotate
from adlbench.methods.base.supervised import SupervisedMethod
from adlbench.methods.nn.pointnet import PointNetEncoder, SharedLayer, orthogonality_loss, set_norm_momentum


class PointNetClassifier(nn.Module):
    """Points [B, N, 3] to logits [B, K] and the feature transform [B, 64, 64] (figure 2, upper branch)."""

    def __init__(self, num_classes: int, dropout: float = 0.3):
        super().__init__()
        self.encoder = PointNetEncoder()
        self.head = nn.Sequential(
            SharedLayer(1024, 512),
            nn.Dropout(dropout),
            SharedLayer(512, 256),
            nn.Dropout(dropout),
            nn.Linear(256, num_classes),
        )

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        encoding = self.encoder(points)
        return self.head(encoding.pooled), encoding.feature_transform


@dataclass(eq=False, kw_only=True)
class PointNet(SupervisedMethod):
    """Adam with a staircase decay; the momentum of batch normalisation decays along with the rate.

    The paper decays both every 200,000 samples, 12 times in its 250 epochs of 9,840 shapes; here it is as often over
    whatever the budget is.
    """

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})

    batch_size: int = 32
    num_points: int = 1024  # per cloud: drawn anew at each training step, the first ones of the list in evaluation
    num_decays: int = 12  # of the learning rate and the momentum, over the budget
    decay_rate: float = 0.7  # of the learning rate, at each decay
    min_learning_rate: float = 1e-5
    norm_momentum: float = 0.5  # at first, in PyTorch's sense; halved at each decay
    min_norm_momentum: float = 0.01
    dropout: float = 0.3  # after both hidden layers of the head
    regularisation: float = 1e-3  # weight of ||I - A A^T||^2
    up_axis: int = 1  # 0 x, 1 y, 2 z
    rotation: bool = True  # training clouds are turned about the up axis
    jitter_sigma: float = 0.01  # of the noise on training points, in units of the cloud
    jitter_clip: float = 0.05

    def skip(self, schema: DataSchema) -> str | None:
        if schema.num_train < 2:
            return "normalises over the batch and therefore needs at least two training items"
        if self.batch_size < 2:
            return f"normalises over the batch, and batch_size is {self.batch_size}; set it to 2 or more"
        return super().skip(schema)

    def network(self, schema: DataSchema) -> nn.Module:
        return PointNetClassifier(len(schema.classes), self.dropout)

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        # The first points, not a random choice: evaluation is a function of the item.
        logits: Tensor = net(batch["points"][:, : self.num_points])[0]
        return logits

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, feature_transform = net(batch["points"])
        return self.regularised(self.cross_entropy(logits, batch), feature_transform)

    def regularised(self, terms: dict[str, Tensor], feature_transform: Tensor) -> dict[str, Tensor]:
        """Equation 2: keeps the feature transform close to orthogonal, so that it loses no information."""
        orthogonality = orthogonality_loss(feature_transform.float())
        return {**terms, "loss": terms["loss"] + self.regularisation * orthogonality, "orthogonality": orthogonality}

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        batch = choose_points(batch, self.num_points, generator)
        if self.rotation:
            batch = rotate(batch, self.up_axis, generator)
        if self.jitter_sigma > 0:
            batch = {**batch, "points": jitter(batch["points"], self.jitter_sigma, self.jitter_clip, generator)}
        return batch

    def learning_rate_at(self, progress: float) -> float:
        decays = math.floor(progress * self.num_decays)
        return max(self.learning_rate * self.decay_rate**decays, self.min_learning_rate)

    def norm_momentum_at(self, progress: float) -> float:
        """The momentum of all batch normalisations at ``progress`` in [0, 1] of the budget."""
        decays = math.floor(progress * self.num_decays)
        return max(self.norm_momentum * 0.5**decays, self.min_norm_momentum)

    def step(self) -> Mapping[str, Tensor]:
        set_norm_momentum(self.net, self.norm_momentum_at(self.context.progress))
        return super().step()
