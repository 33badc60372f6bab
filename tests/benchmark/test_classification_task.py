from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Batch, DataError, DataSchema, Modality
from adlbench.benchmark.tasks.base import EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.classification import Classification
from adlbench.benchmark.tasks.protocols import evaluator_class

CONTEXT = EvaluationContext(device=torch.device("cpu"), seed=0)


def image_data(num_classes: int = 7, count: int = 50, labels: Tensor | None = None) -> EvaluationData:
    """Images whose first pixel is their class."""
    generator = torch.Generator().manual_seed(0)
    if labels is None:
        labels = torch.randint(0, num_classes, (count,), generator=generator)
    image = torch.randint(0, 256, (len(labels), 1, 8, 8), generator=generator, dtype=torch.uint8)
    image[:, 0, 0, 0] = labels.to(torch.uint8)
    schema = DataSchema(
        modality=Modality.IMAGE,
        fields=("image", "label"),
        num_train=1,
        num_test=len(labels),
        classes=tuple(f"class {i}" for i in range(num_classes)),
        channels=1,
        image_size=(8, 8),
    )
    split = ArraySplit(image=image, label=labels)
    return EvaluationData(schema, ArraySplit(image=image[:1], label=labels[:1]), split, "")


class FirstPixel:
    """Right unless ``broken`` says which of the items (by order) it calls class 0."""

    def __init__(self, num_classes: int, offset: int = 0):
        self.num_classes, self.offset = num_classes, offset
        self.seen: set[str] = set()

    def logits(self, inputs: Batch) -> Tensor:
        self.seen |= set(inputs)
        guess = (inputs["image"][:, 0, 0, 0].long() + self.offset) % self.num_classes
        return torch.nn.functional.one_hot(guess, self.num_classes).float() * 5


def test_protocol_names_it():
    assert evaluator_class("top1@1") is Classification


def test_scores_of_a_perfect_and_of_a_wrong_predictor():
    data = image_data()
    result = Classification().evaluate(FirstPixel(7), data, CONTEXT)
    assert result.values["top1"] == result.values["mean_accuracy"] == result.values["top5"] == 1.0
    assert result.values["nll"] == pytest.approx(np.log(np.exp(5) + 6) - 5, rel=1e-6)
    assert result.predictions["label"].dtype == np.uint8
    assert (result.predictions["label"] == data.test.all()["label"].numpy()).all()
    wrong = Classification().evaluate(FirstPixel(7, offset=1), data, CONTEXT)
    assert wrong.values["top1"] == 0.0
    assert set(wrong.images) == {"confusion matrix", "items", "errors"}
    assert "errors" not in result.images


def test_every_metric_is_defined_and_has_a_value_or_a_reason():
    for classes in (3, 7):
        result = Classification().evaluate(FirstPixel(classes), image_data(classes), CONTEXT)
        assert set(result.values) | set(result.absent) == set(Classification.metrics)
    assert "top5" in Classification().evaluate(FirstPixel(3), image_data(3), CONTEXT).absent


def test_items_average_to_the_values():
    result = Classification().evaluate(FirstPixel(7), image_data(), CONTEXT)
    for name, values in result.items.items():
        assert values.shape == (50,)
        assert values.mean() == pytest.approx(result.values[name])


def test_the_predictor_never_sees_labels():
    predictor = FirstPixel(7)
    Classification().evaluate(predictor, image_data(), CONTEXT)
    assert predictor.seen == {"image"}


def test_batches_do_not_change_the_scores():
    data = image_data()
    one, other = (Classification(batch_size=size).evaluate(FirstPixel(7, 1), data, CONTEXT) for size in (1, 1000))
    assert one.values == other.values


def test_max_items_takes_the_first():
    shares: list[float] = []
    context = replace(CONTEXT, max_items=20, progress=shares.append)
    result = Classification(batch_size=8).evaluate(FirstPixel(7), image_data(), context)
    assert len(result.items["top1"]) == result.notes["num_items"] == 20
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_points_are_drawn():
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.normal(size=(12, 64, 3)), dtype=torch.float32)
    split = ArraySplit(points=points, label=torch.arange(12) % 3)
    schema = DataSchema(Modality.POINTS, ("points", "label"), 1, 12, classes=("a", "b", "c"), num_points=64)

    class Constant:
        def logits(self, inputs: Batch) -> Tensor:
            return torch.tensor([[1.0, 0.0, -1.0]]).expand(len(inputs["points"]), -1)

    result = Classification().evaluate(Constant(), EvaluationData(schema, split, split, ""), CONTEXT)
    assert result.values["top1"] == pytest.approx(1 / 3)
    assert result.images["errors"].dtype == np.uint8
    assert result.images["errors"].std() > 0


def test_one_class_only_is_scored_and_said():
    data = image_data(num_classes=1, labels=torch.zeros(5, dtype=torch.int64))
    result = Classification().evaluate(FirstPixel(1), data, CONTEXT)
    assert result.values["top1"] == 1.0
    assert result.values["nll"] == result.values["ece"] == 0.0
    assert "class 0" in result.notes["one_class"]


class Returns:
    def __init__(self, value: Tensor):
        self.value = value

    def logits(self, inputs: Batch) -> Tensor:
        return self.value


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.full((5, 7), torch.nan), "diverged"),
        (torch.full((5, 7), -torch.inf), "diverged"),
        (torch.eye(5, 7) * torch.inf, "diverged"),
        (torch.zeros(5, 6), r"shape \(5, 6\); for this batch it must be \(5, 7\)"),
    ],
)
def test_broken_logits_are_errors(logits, message):
    data = image_data(labels=torch.arange(5))
    with pytest.raises(AdlbenchError, match=message):
        Classification().evaluate(Returns(logits), data, CONTEXT)


def test_broken_data_are_errors():
    with pytest.raises(AdlbenchError, match="no items"):
        Classification().evaluate(FirstPixel(7), image_data(labels=torch.zeros(0, dtype=torch.int64)), CONTEXT)
    data = image_data(num_classes=3, labels=torch.tensor([0, 1, 3]))
    with pytest.raises(DataError, match="names 3 classes"):
        Classification().evaluate(FirstPixel(3), data, CONTEXT)
    points = torch.zeros(4, 8, 3)
    points[2, 0, 0] = torch.nan
    split = ArraySplit(points=points, label=torch.zeros(4, dtype=torch.int64))
    schema = DataSchema(Modality.POINTS, ("points", "label"), 4, 4, classes=("a",), num_points=8)
    with pytest.raises(DataError, match="'points' of test item 2 is not finite"):
        Classification().evaluate(Returns(torch.zeros(4, 1)), EvaluationData(schema, split, split, ""), CONTEXT)


def test_inference_repeats_a_set_that_is_smaller_than_the_batch():
    data = image_data(count=3)
    call, samples = Classification().inference(FirstPixel(7), data, CONTEXT, 10)
    logits = call()
    assert isinstance(logits, Tensor)
    assert samples == len(logits) == 10


def test_long_class_names_and_many_classes_can_be_drawn():
    labels = torch.arange(60)
    data = image_data(num_classes=60, labels=labels)
    data = replace(data, schema=replace(data.schema, classes=tuple(f"a class with a long name {i}" for i in range(60))))
    result = Classification().evaluate(FirstPixel(60, 1), data, CONTEXT)
    assert max(result.images["confusion matrix"].shape) < 1200
