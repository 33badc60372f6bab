"""k nearest neighbours on pixels: what is to be beaten without learning anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class KNNPixels(Method):
    """The classes' shares among the ``neighbours`` training images of least Euclidean distance."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    neighbours: int = 3

    def skip(self, schema: DataSchema) -> str | None:
        return None if schema.classes else "the schema names no classes to predict"

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        if data.present:
            check_items(data, "label", len(data.schema.classes))
        self.images = torch.empty(0, dtype=torch.uint8)  # [N, D], kept in bytes
        self.labels = torch.empty(0, dtype=torch.int64)  # [N]

    def step(self) -> Mapping[str, Tensor]:
        items = self.data.train.all()
        self.images = items["image"].flatten(1).to(self.context.device)
        self.labels = items["label"].to(self.context.device)
        self.context.count(len(self.labels))
        return {}

    def predictor(self) -> NearestImages:
        return NearestImages(self.images, self.labels, len(self.data.schema.classes), self.neighbours)


class NearestImages:
    CHUNK = 10_000  # training images at a time, to bound the memory

    def __init__(self, images: Tensor, labels: Tensor, num_classes: int, neighbours: int):
        self.images, self.labels, self.num_classes = images, labels, num_classes
        self.neighbours = min(neighbours, len(images))

    def logits(self, inputs: Batch) -> Tensor:
        """Logarithms of (votes + 1/K) / (k + 1); equal votes go to the class with the lower index."""
        query = to_unit(inputs["image"]).flatten(1)
        nearest = self.nearest(query)
        votes = functional.one_hot(self.labels[nearest], self.num_classes).sum(1).float()
        return torch.log((votes + 1.0 / self.num_classes) / (self.neighbours + 1.0))

    def nearest(self, query: Tensor) -> Tensor:
        """Indices [B, k] of the images nearest to ``query`` [B, D]."""
        distances, indices = [], []
        for start in range(0, len(self.images), self.CHUNK):
            chunk = to_unit(self.images[start : start + self.CHUNK])
            # |q - c|² less |q|², which is the same for all of a query's candidates
            distance = torch.addmm(chunk.square().sum(1), query, chunk.T, alpha=-2.0)
            best = distance.topk(min(self.neighbours, len(chunk)), largest=False)
            distances.append(best.values)
            indices.append(best.indices + start)
        order = torch.cat(distances, 1).topk(self.neighbours, largest=False).indices
        return torch.cat(indices, 1).gather(1, order)
