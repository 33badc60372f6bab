"""Protocol ``top1@1``: one class for an item, scored by the share of items that are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, DataError, Modality, Predictor, PredictsLogits, TaskKind
from adlbench.benchmark.metrics import classification as scores
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.class_pictures import confusion_picture, labelled_items
from adlbench.benchmark.tasks.point_pictures import draw_points

Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Classification(Evaluator):
    """The predictor sees each test item once, as it is stored, and names the class with the largest logit.

    No averaging over augmented copies (crops, flips, "voting"): a method that wants it does it inside its predictor.
    """

    kind: ClassVar[TaskKind] = TaskKind.CLASSIFICATION
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE, Modality.POINTS})
    requires: ClassVar[frozenset[str]] = frozenset({"label"})
    offers: ClassVar[tuple[type, ...]] = (PredictsLogits,)
    metrics: ClassVar[Mapping[str, str]] = {
        "top1": "share of the test items whose class is rated highest",
        "mean_accuracy": "mean over the classes that occur of the share of their items that are right",
        "top5": "share of the test items whose class is among the five rated highest; absent with five classes or less",
        "nll": f"mean negative log-likelihood of the true class, nats, at most {scores.MAX_NLL:g} an item",
        "ece": "expected calibration error, 15 equal bins of confidence",
    }

    batch_size: int = 100  # items per call of the predictor
    pictures: int = 24  # items to draw

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        count = min(len(data.test), context.max_items or len(data.test))
        if count == 0:
            raise AdlbenchError("the test split has no items to score; give it at least one")
        classes = data.schema.classes
        parts, labels = [], []
        for start in range(0, count, self.batch_size):
            batch = data.test.batch(np.arange(start, min(start + self.batch_size, count)))
            labels.append(batch["label"].numpy())
            parts.append(self.predict(predictor, batch, start, len(classes), context.device))
            context.progress((start + len(labels[-1])) / count)
        logits, truth = np.concatenate(parts), np.concatenate(labels)
        if truth.min() < 0 or truth.max() >= len(classes):
            raise DataError(
                f"test labels are {truth.min()}..{truth.max()}, but the schema names {len(classes)} classes "
                f"(0..{len(classes) - 1}); correct the labels or the schema"
            )
        rank = scores.rank_of_truth(logits, truth)
        items = {
            "top1": (rank == 0).astype(np.float64),
            "mean_accuracy": (rank == 0) * scores.class_weights(truth),
            "nll": scores.negative_log_likelihood(logits, truth),
        }
        if len(classes) > 5:
            items["top5"] = (rank < 5).astype(np.float64)
        result = Evaluation(items=items, values={name: float(value.mean()) for name, value in items.items()})
        result.values["ece"] = scores.expected_calibration_error(logits, truth)
        if "top5" not in items:
            result.absent["top5"] = f"with {len(classes)} classes it says nothing"
        predicted = logits.argmax(axis=1)
        result.predictions["label"] = predicted.astype(np.uint8 if len(classes) <= 256 else np.int32)
        result.notes["num_items"] = count
        if len(np.unique(truth)) == 1:
            result.notes["one_class"] = f"every test item is '{classes[truth[0]]}': accuracy says little here"
        confusion = scores.confusion_matrix(truth, predicted, len(classes))
        result.images["confusion matrix"] = confusion_picture(confusion, classes)
        result.exhibits["confusion matrix"] = Exhibit("confusion", {"counts": confusion}, {"labels": list(classes)})
        self.draw_items(result, data, truth, predicted)
        return result

    def predict(
        self, predictor: Predictor, batch: Mapping[str, Tensor], start: int, num_classes: int, device: torch.device
    ) -> Logits:
        """Logits [B, K] of one batch. Raises for input or logits that are not numbers, and logits of another shape."""
        inputs = observation(batch, device)
        for name, value in inputs.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                bad = int((~torch.isfinite(value)).flatten(1).any(1).nonzero()[0])
                raise DataError(f"field '{name}' of test item {start + bad} is not finite; remove or repair the item")
        with torch.no_grad():
            logits = cast(PredictsLogits, predictor).logits(inputs)
        expected = (len(batch["label"]), num_classes)
        if tuple(logits.shape) != expected:
            raise AdlbenchError(f"logits have shape {tuple(logits.shape)}; for this batch it must be {expected}")
        # argmax would quietly call a NaN the best of all, and +inf leaves no probabilities. -inf rules a class out.
        if bool((torch.isnan(logits) | (logits == torch.inf)).any()) or not bool((logits > -torch.inf).any(1).all()):
            raise AdlbenchError("logits are NaN or infinite: the model has diverged; lower its learning rate")
        return logits.float().cpu().numpy()

    def draw_items(
        self, result: Evaluation, data: EvaluationData, truth: NDArray[np.int64], predicted: NDArray[np.int64]
    ) -> None:
        """Items spread over the test set, and the first that are wrong."""
        count, classes = len(truth), data.schema.classes
        spread = np.unique(np.linspace(0, count - 1, min(self.pictures, count)).astype(int))
        wrong = np.flatnonzero(truth != predicted)[: self.pictures]
        for name, chosen in (("items", spread), ("errors", wrong)):
            if len(chosen) == 0:
                continue
            drawn = pictures_of(data.test.batch(chosen))
            true = [classes[i] for i in truth[chosen]]
            guess = [classes[i] for i in predicted[chosen]]
            if drawn:
                result.images[name] = labelled_items(drawn, true, guess)

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        indices = np.arange(batch_size) % len(data.test)  # a batch larger than the set repeats it
        inputs = observation(data.test.batch(indices), context.device)
        frozen = cast(PredictsLogits, predictor)

        def call() -> object:
            with torch.no_grad():
                return frozen.logits(inputs)

        return call, batch_size


def observation(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """What the predictor may see of ``batch``, on the device."""
    return {name: batch[name].to(device) for name in ("image", "points", "normals") if name in batch}


def pictures_of(batch: Mapping[str, Tensor]) -> list[NDArray[np.uint8]]:
    """uint8 [H, W, 3] of each item; none for what cannot be drawn."""
    if "image" in batch:
        image = batch["image"].permute(0, 2, 3, 1).numpy()
        return [np.repeat(item, 3, axis=2) if item.shape[2] == 1 else item[:, :, :3] for item in image]
    if "points" in batch:
        return [draw_points(item, height_colours(item), size=94) for item in batch["points"].numpy()]
    return []


def height_colours(points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours [P, 3] from dark blue below to light orange above, so that a cloud's depth can be read."""
    height = points[:, 1] - points[:, 1].min()
    share = (height / max(float(height.max()), 1e-9))[:, None]
    low, high = np.array([40.0, 60.0, 130.0]), np.array([235.0, 150.0, 60.0])
    return np.round(low + share * (high - low)).astype(np.uint8)
