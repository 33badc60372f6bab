"""A plug-in for testing the gate: steps whose cost is a number, and accuracy whose drop is a number."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adlbench import (
    ArraySplit,
    Batch,
    Context,
    DataSchema,
    Dataset,
    Method,
    Modality,
    PredictsLogits,
    Split,
    TaskKind,
    TrainingData,
)


@dataclass(eq=False)
class Coins(Dataset):
    """Items that are told apart by nothing: what a method scores is what it decides to score."""

    num_test: int = 400

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(Modality.POINTS, ("points", "label"), 16, self.num_test, classes=("a", "b"), num_points=1)

    def load(self, instance: str, split: str) -> Split:
        n = 16 if split == "train" else self.num_test
        points = torch.randn(n, 1, 3, generator=torch.Generator().manual_seed(n))
        points[:, 0, 0] = torch.arange(n)  # the item's number
        return ArraySplit(points=points, label=torch.arange(n) % 2)


class _Predictor:
    def __init__(self, right: Tensor, units: int, weight: Tensor):
        self.right, self.units, self.weight = right, units, weight

    def logits(self, inputs: Batch) -> Tensor:
        _products(self.weight, self.units)
        item = inputs["points"][:, 0, 0].long()
        guess = torch.where(self.right[item], item % 2, 1 - item % 2)
        return torch.nn.functional.one_hot(guess, 2).float() * 4


def _products(weight: Tensor, units: int) -> Tensor:
    x = weight
    for _ in range(units):
        x = x @ weight
    return x


@dataclass(eq=False)
class Worker(Method):
    """A step of ``units`` matrix products, and ``accuracy`` right answers of a hundred, with noise by seed."""

    serves: ClassVar = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar = frozenset({Modality.POINTS})
    units: int = 100
    size: int = 64
    sleep: float = 0.0  # seconds of a step that no processor spends
    memory: int = 0  # MB held
    accuracy: float = 0.9
    noise: float = 0.0  # standard deviation between seeds
    fails: bool = False

    def setup(self, data: TrainingData, context: Context) -> None:
        if self.fails:
            raise RuntimeError("no luck today")
        self.context = context
        self.weight = torch.randn(self.size, self.size, generator=torch.Generator().manual_seed(0)) / self.size**0.5
        self.ballast = torch.ones(self.memory, 2**18)
        generator = torch.Generator().manual_seed(context.seed("coins"))
        share = self.accuracy + self.noise * float(torch.randn((), generator=generator))
        self.right = torch.rand(data.schema.num_test, generator=generator) < share

    def step(self) -> Mapping[str, Tensor]:
        x = _products(self.weight, self.units)
        if self.sleep:
            time.sleep(self.sleep)
        self.context.count(1)
        return {"loss": x.mean()}

    def predictor(self) -> PredictsLogits:
        return _Predictor(self.right, self.units, self.weight)

    def state_dict(self) -> dict[str, Any]:
        return {"right": self.right}

    def num_parameters(self) -> int:
        return 0
