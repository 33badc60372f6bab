"""Trivial segmentation: the commonest part everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class MajorityLabel(Method):
    """Counts the labels of all training points in one step."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.SEGMENTATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})

    batch_size: int = 256  # clouds read at a time

    def skip(self, schema: DataSchema) -> str | None:
        return None if "point_label" in schema.fields else "learns from the field 'point_label', which is not there"

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        self.counts = torch.zeros(len(data.schema.parts), dtype=torch.int64, device=context.device)
        if data.present:
            check_items(data, "point_label", len(data.schema.parts))

    def step(self) -> Mapping[str, Tensor]:
        train = self.data.train
        counts = torch.zeros(len(self.counts), dtype=torch.int64)  # where the labels are
        for start in range(0, len(train), self.batch_size):
            labels = train.batch(np.arange(start, min(start + self.batch_size, len(train))))["point_label"]
            counts += torch.bincount(labels.flatten(), minlength=len(counts))
        self.counts = counts.to(self.counts)
        self.context.count(len(train))
        return {"majority_share": counts.max() / counts.sum()}

    def predictor(self) -> ConstantLogits:
        share = (self.counts + 1) / (self.counts + 1).sum()
        return ConstantLogits(share.log().to(self.context.device))


class ConstantLogits:
    """The logarithm of the same frequencies at every point."""

    def __init__(self, values: Tensor):
        self.values = values  # [K]

    def logits(self, inputs: Batch) -> Tensor:
        return self.values.expand(*inputs["points"].shape[:2], -1)
