"""The class that is most frequent in training, whatever the input: accuracy starts here, not at 0 or 1/K."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class MajorityClass(Method):
    """Rates the classes by their frequency in training, each counted once more so that none is impossible."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE, Modality.POINTS})

    def skip(self, schema: DataSchema) -> str | None:
        return None if schema.classes else "the schema names no classes to predict"

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        if data.present:
            check_items(data, "label", len(data.schema.classes))
        self.counts = torch.ones(len(data.schema.classes), device=context.device)

    def step(self) -> Mapping[str, Tensor]:
        labels = self.data.train.all()["label"]
        counts = torch.bincount(labels, minlength=len(self.counts)) + 1
        self.counts = counts.to(self.counts)
        self.context.count(len(labels))
        return {}

    def predictor(self) -> ClassFrequencies:
        return ClassFrequencies(torch.log(self.counts / self.counts.sum()))


class ClassFrequencies:
    def __init__(self, log_frequency: Tensor):
        self.log_frequency = log_frequency

    def logits(self, inputs: Batch) -> Tensor:
        count = len(next(iter(inputs.values())))
        return self.log_frequency.expand(count, -1)
