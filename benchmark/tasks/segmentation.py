"""Protocol ``point-miou@1``: a label for every point of a cloud, scored by the intersection over union of the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, DataError, Modality, Predictor, PredictsLogits, Split, TaskKind
from adlbench.benchmark.metrics import segmentation as scores
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.point_pictures import compare_labels


@dataclass(frozen=True, kw_only=True)
class PointSegmentation(Evaluator):
    """The predictor sees whole clouds, as they are stored, and labels each of their points with its largest logit.

    This has the metrics of the ShapeNet-part protocol and, with ``show_label``, the first of the two hints that papers give
    the network, the shape's category. It has not the second: parts of other categories are not ruled out afterwards.
    """

    kind: ClassVar[TaskKind] = TaskKind.SEGMENTATION
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})
    requires: ClassVar[frozenset[str]] = frozenset({"points", "point_label"})
    offers: ClassVar[tuple[type, ...]] = (PredictsLogits,)
    metrics: ClassVar[Mapping[str, str]] = {
        "miou": "mean IoU over the parts that occur, from one confusion matrix of all test points",
        "accuracy": "share of all test points whose label is right",
        "mean_accuracy": "mean over the parts that occur of the share of their points whose label is right",
        "instance_miou": "ShapeNet-part: per shape the mean IoU over its category's parts (1 where a part is in "
        "neither truth nor prediction), mean over shapes",
        "category_miou": "as instance_miou, mean over categories of the mean over their shapes",
    }

    batch_size: int = 16  # clouds per call of the predictor
    show_label: bool = False  # whether the predictor sees the shape's category
    pictures: int = 6  # clouds to draw

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        count = min(len(data.test), context.max_items or len(data.test))
        if count == 0:
            raise AdlbenchError("the test split has no items to score; give it at least one")
        num_parts = len(data.schema.parts)
        label_type = np.uint8 if num_parts <= 256 else np.int32
        predictions: list[NDArray[np.integer]] = []
        truths: list[NDArray[np.int64]] = []
        categories: list[NDArray[np.int64]] = []
        for batch in batches(data.test, count, self.batch_size):
            done = sum(map(len, truths))
            predictions.append(self.predict(predictor, batch, done, num_parts, context.device).astype(label_type))
            truths.append(batch["point_label"].numpy())
            if "label" in batch:
                categories.append(batch["label"].numpy())
            context.progress(sum(map(len, truths)) / count)
        predicted, truth = np.concatenate(predictions), np.concatenate(truths)
        per_item = scores.confusion_matrices(truth, predicted, num_parts)
        total = per_item.sum(0)
        ious = scores.intersection_over_union(total)
        result = Evaluation(
            values={
                "miou": float(scores.mean_iou(total)),
                "accuracy": float(scores.overall_accuracy(total)),
                "mean_accuracy": float(scores.mean_class_accuracy(total)),
            },
            items={
                # Of each cloud by itself: the mean of these is not the value above, which pools the points.
                "miou": scores.mean_iou(per_item),
                "accuracy": scores.overall_accuracy(per_item),
                "mean_accuracy": scores.mean_class_accuracy(per_item),
            },
            predictions={"point_label": predicted},
            notes={
                "num_items": count,
                "num_points": int(truth.size),
                "iou": {name: float(iou) for name, iou in zip(data.schema.parts, ious) if np.isfinite(iou)},
            },
        )
        if categories and data.schema.classes:
            category = np.concatenate(categories)
            parts_of = category_parts(data, truth, category, self.batch_size)
            per_shape = scores.shape_iou(per_item, category, parts_of)
            result.values["instance_miou"] = float(per_shape.mean())
            result.values["category_miou"] = scores.category_mean(per_shape, category)
            result.items["instance_miou"] = result.items["category_miou"] = per_shape
        else:
            reason = "the dataset has no categories of shapes (field 'label')"
            result.absent = {"instance_miou": reason, "category_miou": reason}
        chosen = np.unique(np.linspace(0, count - 1, min(self.pictures, count)).astype(int))
        if len(chosen):
            clouds = data.test.batch(chosen)["points"].numpy()
            result.images["truth, prediction, errors"] = compare_labels(
                clouds, truth[chosen], predicted[chosen], num_parts
            )
            shown = {"points": clouds, "truth": truth[chosen].astype(label_type), "prediction": predicted[chosen]}
            result.exhibits["parts"] = Exhibit("clouds", shown, {"labels": list(data.schema.parts)})
        return result

    def predict(
        self, predictor: Predictor, batch: Mapping[str, Tensor], start: int, num_parts: int, device: torch.device
    ) -> NDArray[np.int64]:
        """Labels [B, P] of one batch. Raises for input that is not finite, and for NaN logits or logits of another shape."""
        inputs = self.observation(batch, device)
        finite = torch.isfinite(inputs["points"]).flatten(1).all(1)
        if not bool(finite.all()):
            bad = start + int((~finite).nonzero()[0])
            raise DataError(f"test item {bad} has points that are NaN or infinite; remove or repair the item")
        with torch.no_grad():
            logits = cast(PredictsLogits, predictor).logits(inputs)
        expected = (*inputs["points"].shape[:2], num_parts)
        if tuple(logits.shape) != expected:
            raise AdlbenchError(f"logits have shape {tuple(logits.shape)}; for these clouds it must be {expected}")
        # argmax would quietly call a NaN the best of all. Infinite is meant: a label that is ruled out has -inf.
        if bool(torch.isnan(logits).any()):
            raise AdlbenchError(
                "logits are NaN: the model has diverged, or a test cloud has points that are not finite"
            )
        labels: NDArray[np.int64] = logits.argmax(-1).cpu().numpy()
        return labels

    def observation(self, batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """What the predictor may see of ``batch``, on the device."""
        shown = ["points", "normals"] + ["label"] * self.show_label
        return {name: batch[name].to(device) for name in shown if name in batch}

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        indices = np.arange(batch_size) % len(data.test)  # a batch larger than the set repeats it
        inputs = self.observation(data.test.batch(indices), context.device)
        frozen = cast(PredictsLogits, predictor)

        def call() -> object:
            with torch.no_grad():
                return frozen.logits(inputs)

        return call, batch_size


def batches(split: Split, count: int, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """The first ``count`` items in order."""
    for start in range(0, count, batch_size):
        yield split.batch(np.arange(start, min(start + batch_size, count)))


def category_parts(
    data: EvaluationData, truth: NDArray[np.int64], categories: NDArray[np.int64], batch_size: int
) -> list[list[int]]:
    """The parts that a category's shapes have in the training split and among the scored items."""
    has = np.zeros((len(data.schema.classes), len(data.schema.parts)), dtype=bool)
    has[categories[:, None], truth] = True
    for batch in batches(data.train, len(data.train), batch_size):
        has[batch["label"].numpy()[:, None], batch["point_label"].numpy()] = True
    return [np.flatnonzero(row).tolist() for row in has]
