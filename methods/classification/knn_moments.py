"""Trivial classification of point clouds: the nearest neighbours by a few moments of the shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.supervised import check_items

NUM_MOMENTS = 16


def shape_moments(points: Tensor) -> Tensor:
    """[B, P, 3] to [B, 16]: features that do not change when a cloud is moved, turned, mirrored, scaled or permuted.

    Of the cloud with its centroid at 0 and a mean squared radius of 1: the standard deviations along its principal
    axes; mean, deviation and roots of the third and fourth central moment of the radius; and along the principal axes
    the roots of the third (without its sign, which an axis has not) and fourth moments and of the mixed E[x_i^2 x_j^2].
    """
    centred = points.double() - points.double().mean(1, keepdim=True)
    unit = centred / centred.square().sum(-1).mean(1).sqrt().clamp_min(1e-12)[:, None, None]
    variances, axes = torch.linalg.eigh(unit.mT @ unit / points.shape[1])
    along = unit @ axes  # [B, P, 3], coordinates in the principal axes
    radius = along.square().sum(-1).sqrt()
    mean = radius.mean(1)
    offset = radius - mean[:, None]
    third = offset.pow(3).mean(1)
    squares = along.square()
    mixed = torch.stack([(squares[..., i] * squares[..., j]).mean(1) for i, j in ((0, 1), (0, 2), (1, 2))], -1)
    features = [
        variances.clamp_min(0).sqrt(),
        torch.stack([mean, offset.square().mean(1).sqrt(), third.sign() * third.abs().pow(1 / 3)], -1),
        offset.pow(4).mean(1).pow(1 / 4)[:, None],
        along.pow(3).mean(1).abs().pow(1 / 3),
        along.pow(4).mean(1).pow(1 / 4),
        mixed.pow(1 / 4),
    ]
    return torch.cat(features, -1).float()


@dataclass(eq=False, kw_only=True)
class KNNMoments(Method):
    """Tabulates the moments of all training clouds in one step."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})

    k: int = 5
    batch_size: int = 256  # clouds read at a time

    def skip(self, schema: DataSchema) -> str | None:
        return None if "label" in schema.fields else "learns from the field 'label', which this dataset does not have"

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        self.num_classes = len(data.schema.classes)
        self.moments = torch.zeros(0, NUM_MOMENTS, device=context.device)
        self.labels = torch.zeros(0, dtype=torch.int64, device=context.device)
        if data.present:
            check_items(data, "label", self.num_classes)

    def step(self) -> Mapping[str, Tensor]:
        train = self.data.train
        moments, labels = [], []
        for start in range(0, len(train), self.batch_size):
            batch = train.batch(np.arange(start, min(start + self.batch_size, len(train))))
            moments.append(shape_moments(batch["points"].to(self.context.device)))
            labels.append(batch["label"].to(self.context.device))
        self.moments, self.labels = torch.cat(moments), torch.cat(labels)
        self.context.count(len(train))
        return {"clouds": torch.tensor(float(len(train)))}

    def predictor(self) -> MomentNeighbours:
        device = self.context.device
        return MomentNeighbours(self.moments.to(device), self.labels.to(device), self.num_classes, self.k)


class MomentNeighbours:
    """Votes of the nearest training clouds, weighted by the inverse distance of the standardised moments."""

    def __init__(self, moments: Tensor, labels: Tensor, num_classes: int, k: int):
        self.mean, self.deviation = moments.mean(0), moments.std(0, correction=0).clamp_min(1e-6)
        self.table = (moments - self.mean) / self.deviation  # [M, 16]
        self.votes = functional.one_hot(labels, num_classes).float()  # [M, K]
        self.k = min(k, len(moments))

    def logits(self, inputs: Batch) -> Tensor:
        query = (shape_moments(inputs["points"]) - self.mean) / self.deviation
        # Without the product form of the distance, whose rounding depends on the size of the batch.
        distance = torch.cdist(query, self.table, compute_mode="donot_use_mm_for_euclid_dist")
        nearest, index = distance.topk(self.k, largest=False)
        weights = 1 / (nearest + 1e-6)
        share = (weights[..., None] * self.votes[index]).sum(1) / weights.sum(1, keepdim=True)
        return (share + 1e-6).log()
