"""PointNet for part segmentation.

Qi, Su, Mo, Guibas: PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation. CVPR 2017, figure 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError, Batch, Context, DataSchema, TaskKind, TrainingData
from adlbench.methods.classification.pointnet import PointNet
from adlbench.methods.nn.pointnet import PointNetEncoder, SharedLayer


class PointNetSegmenter(nn.Module):
    """Points [B, N, 3 * vectors], and the labels [B] if ``num_classes`` > 0, to logits [B, N, K] and the feature transform.

    The head sees, at every point, the local features of all layers before the pooled one, the pooled feature, and
    the shape's class as a one-hot vector.
    """

    def __init__(
        self,
        *,
        num_parts: int,
        num_classes: int = 0,
        vectors: int = 1,
        before: Sequence[int],
        after: Sequence[int],
        pooled: int,
        head: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.encoder = PointNetEncoder(before, after, pooled, vectors=vectors)
        self.first = SharedLayer(pooled + num_classes + self.encoder.local_width, head[0])
        self.rest = nn.Sequential(
            nn.Dropout(dropout),
            SharedLayer(head[0], head[1]),
            nn.Dropout(dropout),
            SharedLayer(head[1], head[2]),
            nn.Linear(head[2], num_parts),
        )

    def forward(self, points: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        encoding = self.encoder(points)
        shape = encoding.pooled
        if self.num_classes and label is not None:
            classes = torch.arange(self.num_classes, device=label.device)
            one_hot = label[:, None] == classes  # functional.one_hot reads the labels' range back from the device
            shape = torch.cat([shape, one_hot.to(shape.dtype)], 1)
        local = torch.cat(encoding.local, -1)
        # The first layer of the concatenation [shape, local]: what comes from `shape` is the same at all points.
        of_shape, of_point = self.first.linear.weight.split([shape.shape[1], local.shape[-1]], dim=1)
        linear = functional.linear(local, of_point) + functional.linear(shape, of_shape)[:, None]
        logits: Tensor = self.rest(self.first.activate(linear))
        return logits, encoding.feature_transform


@dataclass(eq=False, kw_only=True)
class PointNetSegmentation(PointNet):
    """Trained as the paper's part segmentation: Adam, the rate halved ten times, the momentum five, no augmentation."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.SEGMENTATION})
    target: ClassVar[str] = "point_label"

    num_points: int = 2048  # in training; evaluation labels every point
    before: tuple[int, ...] = (64, 128, 128)  # widths of the layers ahead of the feature transform
    after: tuple[int, ...] = (512,)
    pooled: int = 2048
    head: tuple[int, int, int] = (256, 256, 128)
    num_decays: int = 10
    decay_rate: float = 0.5
    dropout: float = 0.2  # after the first two layers of the head
    rotation: bool = False
    jitter_sigma: float = 0.0
    normals: bool = False  # are part of the input
    class_label: bool = (
        False  # the shape's class is part of the input, where the data has classes and the task shows them
    )
    part_weights: float = 0.0  # a part of frequency f weighs f^-part_weights in the loss; 0 as in the paper

    def skip(self, schema: DataSchema) -> str | None:
        if self.normals and "normals" not in schema.fields:
            return "normals is set, and this dataset has none"
        return super().skip(schema)

    def network(self, schema: DataSchema) -> nn.Module:
        num_classes = len(schema.classes) if self.sees_label(schema) else 0
        return PointNetSegmenter(
            num_parts=len(schema.parts),
            num_classes=num_classes,
            vectors=2 if self.normals else 1,
            before=self.before,
            after=self.after,
            pooled=self.pooled,
            head=self.head,
            dropout=self.dropout,
        )

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = net(self.points_of(batch), self.label_of(batch))[0]
        return logits

    def setup(self, data: TrainingData, context: Context) -> None:
        super().setup(data, context)
        self.weights = torch.ones(len(data.schema.parts), device=context.device)
        if data.present and self.part_weights > 0:
            counts = torch.bincount(data.train.all()["point_label"].flatten(), minlength=len(data.schema.parts))
            share = counts.clamp_min(1) / counts.sum()
            weights = share**-self.part_weights
            self.weights = (weights / (weights * share).sum()).float().to(context.device)  # 1 on average over points

    def cross_entropy(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        flat, target = logits.flatten(0, -2).float(), batch[self.target].flatten()
        losses = functional.cross_entropy(flat, target, reduction="none") * self.weights[target]
        return {"loss": losses.mean(), "accuracy": (flat.detach().argmax(-1) == target).float().mean()}

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, feature_transform = net(self.points_of(batch), self.label_of(batch))
        return self.regularised(self.cross_entropy(logits, batch), feature_transform)

    def points_of(self, batch: Batch) -> Tensor:
        return torch.cat([batch["points"], batch["normals"]], -1) if self.normals else batch["points"]

    def sees_label(self, schema: DataSchema) -> bool:
        return self.class_label and "label" in schema.fields and bool(schema.classes)

    def label_of(self, batch: Batch) -> Tensor | None:
        if not self.sees_label(self.schema):
            return None
        if "label" not in batch:
            raise AdlbenchError(
                "class_label is set, and the task does not show the class of a test shape; set show_label in the "
                "options of the task, or class_label to false"
            )
        return batch["label"]

    def norm_momentum_at(self, progress: float) -> float:
        decays = math.floor(progress * self.num_decays / 2)
        return max(self.norm_momentum * 0.5**decays, self.min_norm_momentum)
