"""Trivial segmentation: every point takes the label of the nearest labelled point of all training clouds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class NearestLabelledPoint(Method):
    """Keeps an equal share of every training cloud, in one step; clouds are compared in the coordinates they have."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.SEGMENTATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})

    max_points: int = 200_000  # kept of all clouds together, at least one of each
    batch_size: int = 256  # clouds read at a time

    def skip(self, schema: DataSchema) -> str | None:
        return None if "point_label" in schema.fields else "learns from the field 'point_label', which is not there"

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        self.num_parts = len(data.schema.parts)
        self.points = torch.zeros(0, 3, device=context.device)
        self.labels = torch.zeros(0, dtype=torch.int64, device=context.device)
        if data.present:
            check_items(data, "point_label", self.num_parts)

    def step(self) -> Mapping[str, Tensor]:
        train = self.data.train
        share = max(self.max_points // len(train), 1)  # of a cloud: its first points, which are a sample like any other
        points, labels = [], []
        for start in range(0, len(train), self.batch_size):
            batch = train.batch(np.arange(start, min(start + self.batch_size, len(train))))
            points.append(batch["points"][:, :share].flatten(0, 1))
            labels.append(batch["point_label"][:, :share].flatten())
        self.points, self.labels = torch.cat(points).to(self.points), torch.cat(labels).to(self.labels)
        self.context.count(len(train))
        return {"kept_points": torch.tensor(float(len(self.points)))}

    def predictor(self) -> NearestLabel:
        return NearestLabel(self.points.numpy(force=True), self.labels.cpu(), self.num_parts)


class NearestLabel:
    """A k-d tree over the labelled points; it is searched on the CPU."""

    def __init__(self, points: np.ndarray, labels: Tensor, num_parts: int):
        self.tree, self.labels, self.num_parts = KDTree(points), labels, num_parts

    def logits(self, inputs: Batch) -> Tensor:
        """[B, P, K]: 0 for the nearest point's label, -inf for the others."""
        points = inputs["points"]
        _, index = self.tree.query(points.flatten(0, 1).numpy(force=True))
        label = self.labels[torch.from_numpy(np.asarray(index))].view(*points.shape[:2], 1)
        logits = torch.full((*points.shape[:2], self.num_parts), -torch.inf).scatter_(2, label, 0.0)
        return logits.to(points.device)
