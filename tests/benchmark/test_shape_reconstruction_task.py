"""Protocol shape-sdf@1: what is shown, what is scored, what an empty reconstruction costs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Batch, DataSchema, Modality
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.protocols import evaluator_class
from adlbench.benchmark.tasks.shape_reconstruction import FARTHEST, ShapeReconstruction

RADII = (0.5, 0.6, 0.7)
SAMPLES, SURFACE = 400, 3000


def make_data() -> EvaluationData:
    """Balls around the origin."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3, SURFACE, 3))
    normals = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    points = rng.uniform(-0.9, 0.9, (3, SAMPLES, 3))
    radius = np.array(RADII)
    split = ArraySplit(
        sdf_points=points.astype(np.float32),
        sdf=(np.linalg.norm(points, axis=-1) - radius[:, None]).astype(np.float32),
        surface_points=(normals * radius[:, None, None]).astype(np.float32),
        surface_normals=normals.astype(np.float32),
    )
    schema = DataSchema(Modality.SHAPE, tuple(split.fields), 3, 3)
    return EvaluationData(schema, split, split, "test")


class Field:
    def __init__(self, distance: Callable[[Tensor], Tensor]):
        self.distance = distance

    def query(self, points: Tensor) -> Tensor:
        return self.distance(points)[:, None]


class BallFitter:
    """Knows that shapes are balls: reads the radius off the observed distances, plus an error."""

    def __init__(self, error: float = 0.0):
        self.error, self.seen = error, list[Batch]()

    def adapt(self, observation: Batch) -> Field:
        self.seen.append(observation)
        radius = (observation["sdf_points"].norm(dim=1) - observation["sdf"]).mean() + self.error
        return Field(lambda points: points.norm(dim=1) - radius)


def evaluate(predictor: object, **options: object) -> Evaluation:
    max_items = options.pop("max_items", None)
    context = EvaluationContext(torch.device("cpu"), seed=0, max_items=max_items)  # type: ignore[arg-type]
    evaluator = ShapeReconstruction(**{"observed": 300, "pictures": 2, **options})  # type: ignore[arg-type]
    return evaluator.evaluate(predictor, make_data(), context)  # type: ignore[arg-type]


def test_protocol_is_registered() -> None:
    assert evaluator_class("shape-sdf@1") is ShapeReconstruction


def test_perfect_reconstruction_reaches_the_floor_of_sampling() -> None:
    result = evaluate(BallFitter())
    floor = [2 * 4 * np.pi * r**2 / (np.pi * SURFACE) * 1e3 for r in RADII]
    np.testing.assert_allclose(result.items["chamfer_l2"], floor, rtol=0.1)
    assert result.notes["chamfer_l2_floor"] == pytest.approx(floor[0], rel=0.15)
    assert result.values["chamfer_l1"] == pytest.approx(
        np.mean([0.5 * np.sqrt(4 * np.pi * r**2 / SURFACE) * 1e3 for r in RADII]), rel=0.05
    )
    assert result.values["normal_consistency"] > 0.99
    assert result.values["iou"] == 1
    assert result.notes["empty_meshes"] == 0
    assert set(result.values) == set(ShapeReconstruction.metrics)


def test_error_is_measured_in_thousandths_of_the_radius() -> None:
    result = evaluate(BallFitter(error=0.1), threshold=0.09)
    assert result.values["chamfer_l1"] == pytest.approx(100, rel=0.04)  # the samples of both lie beside each other, too
    assert result.values["chamfer_l2"] == pytest.approx(20, rel=0.07)
    assert result.values["f_score"] == 0
    items = make_data().test.all()
    inside, larger = items["sdf"][:, 300:] < 0, items["sdf"][:, 300:] < 0.1
    expected = [(a & b).sum() / (a | b).sum() for a, b in zip(inside, larger)]
    np.testing.assert_allclose(result.items["iou"], expected, rtol=1e-6)


def test_median_and_mean_are_of_the_same_items() -> None:
    result = evaluate(BallFitter(error=0.02))
    assert result.values["chamfer_l2"] == pytest.approx(result.items["chamfer_l2"].mean())
    assert result.values["chamfer_l2_median"] == pytest.approx(np.median(result.items["chamfer_l2"]))
    np.testing.assert_array_equal(result.items["chamfer_l2_median"], result.items["chamfer_l2"])


def test_only_the_first_samples_are_shown_and_nothing_of_the_surface() -> None:
    fitter, items = BallFitter(), make_data().test.all()
    evaluate(fitter, observed=50)
    assert len(fitter.seen) == 3
    for i, seen in enumerate(fitter.seen):
        assert set(seen) == {"sdf_points", "sdf"}
        assert torch.equal(seen["sdf_points"], items["sdf_points"][i, :50])
        assert torch.equal(seen["sdf"], items["sdf"][i, :50])


def test_without_held_out_samples_there_is_no_iou() -> None:
    result = evaluate(BallFitter(), observed=SAMPLES)
    assert "iou" not in result.values
    assert str(SAMPLES) in result.absent["iou"]


@pytest.mark.parametrize("value", [1.0, -1.0, float("nan")])
def test_empty_mesh_counts_with_the_worst_values(value: float) -> None:
    class Empty:
        def adapt(self, observation: Batch) -> Field:
            return Field(lambda points: torch.full((len(points),), value))

    result = evaluate(Empty(), max_items=2)
    assert result.notes["empty_meshes"] == 2
    assert result.values["chamfer_l1"] == FARTHEST * 1e3
    assert result.values["chamfer_l2"] == 2 * FARTHEST**2 * 1e3
    assert result.values["f_score"] == result.values["normal_consistency"] == 0
    assert all(np.isfinite(list(result.values.values())))


def test_max_items_progress_and_repetition() -> None:
    shares: list[float] = []
    context = EvaluationContext(torch.device("cpu"), seed=3, max_items=2, progress=shares.append)
    evaluator = ShapeReconstruction(observed=300, pictures=0)
    first, second = (evaluator.evaluate(BallFitter(0.01), make_data(), context) for _ in range(2))
    assert first.values == second.values
    assert len(first.items["chamfer_l2"]) == 2
    assert shares[-1] == 1
    assert first.images == {}


def test_adaptation_is_timed_apart() -> None:
    assert 0 < evaluate(BallFitter()).notes["adapt_seconds"] < 1


def test_pictures_show_truth_reconstruction_and_what_lies_between() -> None:
    class Between(BallFitter):
        def interpolate(self, first: Field, second: Field, share: float) -> Field:
            return Field(lambda points: torch.lerp(first.distance(points), second.distance(points), share))

    result = evaluate(Between())
    assert result.images["truth, reconstruction"].shape == (320, 320, 3)
    assert result.images["interpolation"].shape == (160, 7 * 160, 3)
    assert all(image.dtype == np.uint8 and (image < 255).any() for image in result.images.values())
    assert "interpolation" not in evaluate(BallFitter()).images


def test_inference_asks_a_grid_for_each_shape() -> None:
    context = EvaluationContext(torch.device("cpu"), seed=0)
    call, samples = ShapeReconstruction().inference(BallFitter(), make_data(), context, 3)  # type: ignore[arg-type]
    assert samples == 3 * 33**3
    answers = call()
    assert isinstance(answers, list)
    assert sum(len(a) for a in answers) == samples


def test_wrong_answers_are_named() -> None:
    class Flat:
        def adapt(self, observation: Batch) -> object:
            field = Field(lambda points: points)
            field.query = lambda points: points.norm(dim=1)  # type: ignore[method-assign]
            return field

    class Nothing:
        def adapt(self, observation: Batch) -> object:
            return observation

    with pytest.raises(AdlbenchError, match="query returned"):
        evaluate(Flat())
    with pytest.raises(AdlbenchError, match="offers no query"):
        evaluate(Nothing())
