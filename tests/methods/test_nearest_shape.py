"""The trivial rival of shape reconstruction: its choice, and its interpolation of distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Budget, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.reconstruction.nearest_shape import InterpolatedDistance, NearestShape

RADII = torch.tensor([0.3, 0.5, 0.7])


def make_data(surface: bool = True) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3, 3000, 3, generator=generator) * 2 - 1
    fields = {"sdf_points": points, "sdf": points.norm(dim=-1) - RADII[:, None]}
    if surface:
        normals = torch.nn.functional.normalize(torch.randn(3, 500, 3, generator=generator), dim=-1)
        fields |= {"surface_points": normals * RADII[:, None, None], "surface_normals": normals}
    split = ArraySplit(**fields)
    return TrainingData(DataSchema(Modality.SHAPE, tuple(fields), 3, 3), split)


def trained(folder: Path, data: TrainingData) -> NearestShape:
    context = CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=1),
        work_folder=folder,
        seed_parts=("test",),
        clock=Clock(),
    )
    method = NearestShape(compared=200, shortlist=2)
    method.setup(data, context)
    if data.present:
        method.step()
    return method


@pytest.mark.parametrize("surface", [True, False])
def test_answers_with_the_training_shape_that_fits_best(tmp_path: Path, surface: bool) -> None:
    predictor = trained(tmp_path, make_data(surface)).predictor()
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for radius, nearest in ((0.25, 0.3), (0.44, 0.5), (0.8, 0.7)):
        shape = predictor.adapt({"sdf_points": points, "sdf": points.norm(dim=-1) - radius})
        answer = shape.query(points)
        assert answer.shape == (300, 1)
        assert answer.dtype == torch.float32
        truth = points.norm(dim=-1) - nearest
        assert (answer[:, 0] - truth)[truth.abs() < 0.1].abs().median() < 0.02
        assert ((answer[:, 0] < 0) == (truth < 0))[truth.abs() > 0.1].all()


def test_state_is_enough_without_data(tmp_path: Path) -> None:
    data = make_data()
    method = trained(tmp_path, data)
    restored = trained(tmp_path, TrainingData(data.schema, AbsentSplit(3)))
    restored.load_state_dict(method.state_dict())
    items = data.train.batch([1])
    observation = {name: items[name][0] for name in ("sdf_points", "sdf")}
    query = torch.rand(50, 3) - 0.5
    answers = [m.predictor().adapt(observation).query(query) for m in (method, restored)]
    assert torch.equal(*answers)
    assert restored.num_parameters() == 0


def test_interpolation_follows_the_slope_of_the_samples() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (4000, 3))
    field = InterpolatedDistance(points, points[:, 1] - 0.2)
    asked = rng.uniform(-0.8, 0.8, (500, 3))
    asked = asked[np.abs(asked[:, 1] - 0.2) < 0.1]
    error = np.abs(field(asked) - (asked[:, 1] - 0.2))
    away = field.tree.query(asked)[0]
    assert error.mean() < 0.1 * away.mean()  # not 0: the ridge flattens slopes that few neighbours tell about


def test_interpolation_returns_the_samples() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    distances = np.linalg.norm(points, axis=1) - 0.5
    np.testing.assert_allclose(InterpolatedDistance(points, distances)(points), distances, atol=1e-9)


def test_no_value_is_impossible_for_a_distance() -> None:
    """Far from all samples too, where a fitted plane would go anywhere."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.2, 0.2, (300, 3))
    distances = np.abs(points[:, 0]) - 0.1
    asked = rng.uniform(-1, 1, (1000, 3))
    answer = InterpolatedDistance(points, distances)(asked)
    away = np.linalg.norm(asked[:, None] - points[None], axis=-1)
    nearest = away.argmin(1)
    assert (np.abs(answer - distances[nearest]) <= away.min(1) + 1e-9).all()


def test_refuses_data_without_distances() -> None:
    reason = NearestShape().skip(DataSchema(Modality.SHAPE, ("surface_points",), 3, 3))
    assert reason is not None
    assert "sdf" in reason
