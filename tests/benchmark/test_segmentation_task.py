"""The protocol point-miou@1, with predictors whose score is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Batch, DataError, DataSchema, Modality
from adlbench.benchmark.tasks.base import EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.point_pictures import compare_labels, draw_points, palette
from adlbench.benchmark.tasks.protocols import evaluator_class
from adlbench.benchmark.tasks.segmentation import PointSegmentation

CONTEXT = EvaluationContext(device=torch.device("cpu"), seed=0)
PARTS = 4


class Says:
    """Labels by a rule on the points."""

    def __init__(self, rule: Callable[[Batch], Tensor]):
        self.rule, self.seen = rule, set[str]()

    def logits(self, inputs: Batch) -> Tensor:
        self.seen |= set(inputs)
        return functional.one_hot(self.rule(inputs), PARTS).float()


def by_octant(inputs: Batch) -> Tensor:
    x, y = inputs["points"][..., 0] > 0, inputs["points"][..., 1] > 0
    return x.long() + 2 * y.long()


def make_data(test: int = 10, with_label: bool = True, num_points: int = 50) -> EvaluationData:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> ArraySplit:
        points = torch.randn(count, num_points, 3, generator=generator)
        label = (torch.arange(count) % 2).long()
        points[label == 0, :, 1] = -points[label == 0, :, 1].abs()  # the first class has parts 0 and 1 only
        fields = {"points": points, "point_label": by_octant({"points": points})}
        return ArraySplit(**fields, **({"label": label} if with_label else {}))

    schema = DataSchema(
        Modality.POINTS,
        ("points", "point_label") + (("label",) if with_label else ()),
        6,
        test,
        classes=("low", "any") if with_label else (),
        parts=("a", "b", "c", "d"),
        num_points=num_points,
    )
    return EvaluationData(schema, split(6), split(test), "")


def test_protocol_names_the_evaluator() -> None:
    assert evaluator_class("point-miou@1") is PointSegmentation


def test_a_perfect_predictor_scores_one() -> None:
    data, predictor = make_data(), Says(by_octant)
    result = PointSegmentation(batch_size=3).evaluate(predictor, data, CONTEXT)
    assert set(result.values) == set(PointSegmentation.metrics)
    assert set(result.values.values()) == {1.0}
    assert predictor.seen == {"points"}  # neither labels nor the class
    assert result.predictions["point_label"].dtype == np.uint8
    np.testing.assert_array_equal(result.predictions["point_label"], data.test.all()["point_label"])
    assert all(value.shape == (10,) for value in result.items.values())
    assert result.notes["iou"] == {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}


def test_values_of_a_predictor_with_known_errors() -> None:
    data = make_data()
    ignores_y = Says(lambda inputs: (inputs["points"][..., 0] > 0).long())
    result = PointSegmentation().evaluate(ignores_y, data, CONTEXT)
    truth = data.test.all()["point_label"]
    expected = []
    for part in range(PARTS):
        predicted = truth % 2 == part
        expected.append(float(((truth == part) & predicted).sum() / ((truth == part) | predicted).sum()))
    assert result.values["miou"] == pytest.approx(np.mean(expected))
    assert result.values["accuracy"] == pytest.approx(float((truth < 2).float().mean()))
    assert result.values["mean_accuracy"] == pytest.approx(0.5)
    # shapes of class 0 are right, of class 1 wrong in parts 2 and 3
    assert (result.items["instance_miou"][::2] == 1.0).all()
    assert (result.items["instance_miou"][1::2] < 0.5).all()
    assert result.values["instance_miou"] == pytest.approx(result.items["instance_miou"].mean())


def test_twice_the_same_and_any_batch_size() -> None:
    data, predictor = make_data(), Says(lambda inputs: by_octant(inputs).clamp(max=2))
    results = [PointSegmentation(batch_size=size).evaluate(predictor, data, CONTEXT) for size in (1, 4, 4, 100)]
    for result in results[1:]:
        assert result.values == results[0].values
        for name in result.items:
            np.testing.assert_array_equal(result.items[name], results[0].items[name])
        for name in result.images:
            np.testing.assert_array_equal(result.images[name], results[0].images[name])


def test_max_items_takes_the_first() -> None:
    shares: list[float] = []
    context = EvaluationContext(torch.device("cpu"), 0, max_items=4, progress=shares.append)
    result = PointSegmentation(batch_size=3).evaluate(Says(by_octant), make_data(), context)
    assert result.predictions["point_label"].shape == (4, 50)
    assert result.notes["num_items"] == 4
    assert shares == [0.75, 1.0]


def test_the_class_is_shown_only_if_the_task_says_so() -> None:
    predictor = Says(by_octant)
    PointSegmentation(show_label=True).evaluate(predictor, make_data(), CONTEXT)
    assert predictor.seen == {"points", "label"}


def test_without_categories_their_metrics_are_absent() -> None:
    result = PointSegmentation().evaluate(Says(by_octant), make_data(with_label=False), CONTEXT)
    assert set(result.values) == {"miou", "accuracy", "mean_accuracy"}
    assert "no categories" in result.absent["instance_miou"]


def test_a_label_that_is_ruled_out_may_have_minus_infinity() -> None:
    class Sure(Says):
        def logits(self, inputs: Batch) -> Tensor:
            return super().logits(inputs).log()

    assert PointSegmentation().evaluate(Sure(by_octant), make_data(), CONTEXT).values["miou"] == 1.0


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (lambda points: torch.zeros(*points.shape[:2], 3), r"shape \(10, 50, 3\).*\(10, 50, 4\)"),
        (lambda points: torch.zeros(points.shape[0], PARTS), "shape"),
        (lambda points: torch.full((*points.shape[:2], PARTS), torch.nan), "diverged"),
    ],
)
def test_bad_logits_are_an_error(logits: Callable[[Tensor], Tensor], message: str) -> None:
    class Bad:
        def logits(self, inputs: Batch) -> Tensor:
            return logits(inputs["points"])

    with pytest.raises(AdlbenchError, match=message):
        PointSegmentation().evaluate(Bad(), make_data(), CONTEXT)


def test_bad_test_data_is_named() -> None:
    data = make_data()
    data.test.fields["points"][7, 3] = torch.nan  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="test item 7"):
        PointSegmentation(batch_size=4).evaluate(Says(by_octant), data, CONTEXT)
    data = make_data()
    data.test.fields["point_label"][0, 0] = 9  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"truth holds labels 0\.\.9"):
        PointSegmentation().evaluate(Says(by_octant), data, CONTEXT)
    with pytest.raises(AdlbenchError, match="no items"):
        PointSegmentation().evaluate(Says(by_octant), make_data(test=0), CONTEXT)


def test_inference_repeats_a_set_that_is_smaller_than_the_batch() -> None:
    predictor = Says(by_octant)
    call, samples = PointSegmentation().inference(predictor, make_data(), CONTEXT, batch_size=16)
    logits = call()
    assert isinstance(logits, Tensor)
    assert logits.shape == (16, 50, PARTS)
    assert samples == 16


def test_pictures_show_truth_prediction_and_errors() -> None:
    result = PointSegmentation(pictures=3).evaluate(Says(by_octant), make_data(), CONTEXT)
    (picture,) = result.images.values()
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * 160, 3 * 160, 3)
    assert (picture[:160] == picture[160:320]).all()  # all right: the rows agree
    assert not PointSegmentation(pictures=0).evaluate(Says(by_octant), make_data(), CONTEXT).images


def test_near_points_hide_far_ones_and_up_is_up() -> None:
    red, blue = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)
    # two points on one line of sight (azimuth 35, elevation 20 degrees), and two that span the view
    direction = np.array(
        [
            np.cos(np.radians(20)) * np.sin(np.radians(35)),
            np.sin(np.radians(20)),
            np.cos(np.radians(20)) * np.cos(np.radians(35)),
        ]
    )
    points = np.stack([direction, -direction])
    for order in ([0, 1], [1, 0]):
        picture = draw_points(points[order], np.stack([red, blue])[order], size=64)
        assert (picture[32, 32] == red).all()
    picture = draw_points(np.array([[0, 1.0, 0], [0, -1.0, 0]]), np.stack([red, blue]), size=64)
    assert (picture == red).all(-1).nonzero()[0].max() < 32 < (picture == blue).all(-1).nonzero()[0].min()


def test_a_cloud_of_one_repeated_point_can_be_drawn() -> None:
    assert (draw_points(np.ones((5, 3)), np.zeros((5, 3), np.uint8), size=32) == 0).any()


def test_palette_colours_differ_and_stay() -> None:
    colours = palette(50)
    assert len(np.unique(colours, axis=0)) == 50
    np.testing.assert_array_equal(palette(7), colours[:7])
    distance = np.abs(colours[:, None].astype(int) - colours[None]).sum(-1)[:24, :24]
    assert distance[~np.eye(24, dtype=bool)].min() > 80


def test_errors_are_marked() -> None:
    points = np.array([[[0.0, 1, 0], [0, -1, 0]]])
    picture = compare_labels(points, np.array([[0, 1]]), np.array([[0, 0]]), 2)
    marks = picture[320:].reshape(-1, 3)
    assert {tuple(map(int, c)) for c in np.unique(marks, axis=0)} == {(255, 255, 255), (200, 200, 200), (214, 39, 40)}
