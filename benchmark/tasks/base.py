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
class Exhibit:
    """Something to look at on the report's page, kept as small arrays; ``kind`` says how they are read.

    ``views``: truth, prediction uint8 [N, H, W, 3], error uint8 [N, H, W, 3], where there is depth also depth [N, H, W, 3].
    ``samples``: image uint8 [N, H, W, 3], nearest uint8 [N, H, W, 3], the nearest training image of each.
    ``strip``: image uint8 [rows, steps, H, W, 3], each row a path between two codes.
    ``clouds``: points float32 [N, P, 3], truth and prediction uint8 or int32 [N, P]; meta: labels, names of the parts.
    ``meshes``: for shape i true_points_i, true_normals_i [Q, 3], vertices_i [V, 3], faces_i [F, 3].
    ``confusion``: counts int64 [K, K], rows are true; meta: labels.
    ``embedding``: xy float32 [N, 2], truth and prediction int [N], image uint8 [N, H, W, 3] or nothing; meta: labels.
    ``maps``: image uint8 [N, H, W, 3] and any number of maps of the same shape; meta: captions.
    """

    kind: str
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any] = field(default_factory=dict)


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
    exhibits: dict[str, Exhibit] = field(default_factory=dict)  # title -> what the report shows
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
