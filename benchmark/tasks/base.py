"""What every evaluator has in common. One evaluator per protocol; the same code scores every method and every split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from adlbench.benchmark.api import DataSchema, Modality, Predictor, Split, TaskKind


@dataclass(frozen=True)
class EvaluationData:
    """What is scored against. ``train`` is here for floors and memorisation checks, never shown to the predictor."""

    schema: DataSchema
    train: Split
    test: Split
    fingerprint: str


@dataclass(frozen=True)
class EvaluationContext:
    device: torch.device
    seed: int  # derived from the cell's seed: samples, binarisation, random points
    max_items: int | None = None  # the first so many test items; set by the fidelity, None means all of them
    progress: Callable[[float], None] = lambda share: None  # called with the share that is done


@dataclass
class Evaluation:
    """The outcome of one evaluation, as it is stored."""

    values: dict[str, float] = field(default_factory=dict)  # metric -> value over the test set
    absent: dict[str, str] = field(default_factory=dict)  # metric -> why it has no value
    items: dict[str, np.ndarray] = field(default_factory=dict)  # metric -> [N], one value per test item, for pairing
    predictions: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # as they would be stored: uint8 images, int labels
    images: dict[str, np.ndarray] = field(default_factory=dict)  # name -> uint8 [H, W, 3], for people
    notes: dict[str, Any] = field(default_factory=dict)  # beside the numbers: n, floors, extractor, number of samples


class Evaluator(ABC):
    """Scores predictors under one named, versioned protocol. A subclass is a frozen dataclass; its fields are the
    ``options`` of the task's YAML."""

    kind: ClassVar[TaskKind]
    modalities: ClassVar[frozenset[Modality]]
    requires: ClassVar[frozenset[str]]  # fields that a dataset's schema must have
    offers: ClassVar[tuple[type, ...]]  # predictor protocols (api.py) that a method must offer all of
    metrics: ClassVar[Mapping[str, str]]  # metric -> one line that defines it

    @abstractmethod
    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        """Score ``predictor``. Deterministic: the same predictor, data and context give the same numbers.

        Predictions are quantised as they would be stored before they are scored.
        """

    @abstractmethod
    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        """A call that does one inference of ``batch_size`` (input already on the device), and the samples it does,
        in the task's throughput unit. The engine times it for latency and throughput and counts its FLOPs."""
