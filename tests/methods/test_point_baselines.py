"""The trivial methods on point clouds: majority label, nearest labelled point, nearest neighbours by moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Budget, DataError, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import Catalog, build_method
from adlbench.benchmark.context import CellContext
from adlbench.methods.classification.knn_moments import NUM_MOMENTS, KNNMoments, shape_moments
from adlbench.methods.segmentation.majority_label import MajorityLabel
from adlbench.methods.segmentation.nearest_neighbor import NearestLabelledPoint

METHODS = [MajorityLabel, NearestLabelledPoint, KNNMoments]


@pytest.fixture
def context(tmp_path: Path) -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=1),
        work_folder=tmp_path,
        seed_parts=("test",),
        clock=Clock(),
    )


def make_data(count: int = 12, num_points: int = 60) -> TrainingData:
    """Boxes of three proportions; the parts are the sides of the plane x = 0.5."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.2, 0.2], [1.0, 1.0, 0.1]])
    label = torch.arange(count) % 3
    points = (torch.rand(count, num_points, 3, generator=generator) - 0.5) * sides[label][:, None]
    schema = DataSchema(
        Modality.POINTS,
        ("points", "label", "point_label"),
        count,
        count,
        classes=("cube", "bar", "plate"),
        parts=("left", "right", "never"),
        num_points=num_points,
    )
    return TrainingData(schema, ArraySplit(points=points, label=label, point_label=(points[..., 0] > 0.2).long()))


def fit(method: Any, data: TrainingData, context: CellContext) -> Any:
    method.setup(data, context)
    method.step()
    return method.predictor()


@pytest.mark.parametrize("cls", METHODS)
def test_restored_without_data_it_predicts_the_same(cls: type, context: CellContext, tmp_path: Path) -> None:
    data = make_data()
    method = cls()
    predictor = fit(method, data, context)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    restored = cls()
    restored.setup(TrainingData(data.schema, AbsentSplit(12)), context)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    inputs = {"points": torch.randn(4, 20, 3)}
    assert torch.equal(restored.predictor().logits(inputs), predictor.logits(inputs))


@pytest.mark.parametrize("cls", METHODS)
def test_one_step_is_all_and_a_second_changes_nothing(cls: type, context: CellContext) -> None:
    method, data = cls(batch_size=5), make_data()
    predictor = fit(method, data, context)
    assert context.samples == 12
    method.step()
    inputs = {"points": torch.randn(4, 20, 3)}
    assert torch.equal(method.predictor().logits(inputs), predictor.logits(inputs))
    other = fit(cls(batch_size=100), data, context)
    assert torch.equal(other.logits(inputs), predictor.logits(inputs))


@pytest.mark.parametrize("cls", METHODS)
def test_bad_input_is_named(cls: type, context: CellContext) -> None:
    data = make_data()
    data.train.fields["points"][2, 0, 0] = torch.inf  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"points.*item 2"):
        cls().setup(data, context)
    assert cls().skip(replace(data.schema, fields=("points",))) is not None
    assert cls().skip(data.schema) is None


# ------------------------------------------------------------------------------------------------------ majority label
def test_majority_label_gives_the_frequencies(context: CellContext) -> None:
    data = make_data()
    predictor = fit(MajorityLabel(), data, context)
    logits = predictor.logits({"points": torch.randn(2, 7, 3)})
    assert logits.shape == (2, 7, 3)
    share = torch.bincount(data.train.all()["point_label"].flatten(), minlength=3) + 1
    torch.testing.assert_close(logits.exp(), (share / share.sum()).expand(2, 7, 3))
    assert set(logits.argmax(-1).flatten().tolist()) == {0}


# ----------------------------------------------------------------------------------------------- nearest labelled point
def test_nearest_label_equals_brute_force(context: CellContext) -> None:
    data = make_data()
    predictor = fit(NearestLabelledPoint(), data, context)
    train, query = data.train.all(), torch.randn(3, 50, 3) * 0.4
    nearest = torch.cdist(query.flatten(0, 1).double(), train["points"].flatten(0, 1).double()).argmin(1)
    expected = train["point_label"].flatten()[nearest].view(3, 50)
    logits = predictor.logits({"points": query})
    assert torch.equal(logits.argmax(-1), expected)
    assert torch.equal(logits.gather(2, expected[..., None]), torch.zeros(3, 50, 1))
    assert torch.equal(predictor.logits({"points": train["points"]}).argmax(-1), train["point_label"])


def test_every_training_cloud_gives_the_same_share(context: CellContext) -> None:
    data = make_data()
    method = NearestLabelledPoint(max_points=50, batch_size=5)
    fit(method, data, context)
    assert torch.equal(method.points, data.train.all()["points"][:, :4].flatten(0, 1))
    assert torch.equal(method.labels, data.train.all()["point_label"][:, :4].flatten())
    fit(method := NearestLabelledPoint(max_points=1), data, context)
    assert len(method.points) == 12  # one of each at least


# ------------------------------------------------------------------------------------------------------------- moments
def random_rotation(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q


def test_moments_do_not_change_with_pose_scale_order_and_reflection() -> None:
    torch.manual_seed(0)
    points = torch.randn(6, 200, 3, dtype=torch.float64).pow(3) * torch.tensor([1.0, 0.5, 0.2])
    expected = shape_moments(points)
    assert expected.shape == (6, NUM_MOMENTS)
    for seed in range(4):
        moved = 3.7 * points @ random_rotation(seed) + torch.tensor([5.0, -2.0, 1.0])
        torch.testing.assert_close(shape_moments(moved), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shape_moments(points[:, torch.randperm(200)]), expected)


def test_moments_in_closed_form() -> None:
    """A long uniform rod: deviations (1, 0, 0), |x| uniform in [0, sqrt(3)], E x^4 = 9/5."""
    x = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    moments = shape_moments(torch.stack([0 * x, 0 * x, x], -1)[None])[0]
    np.testing.assert_allclose(moments[:3], [0, 0, 1], atol=1e-3)
    np.testing.assert_allclose(moments[3:5], [3**0.5 / 2, 0.5], atol=1e-3)  # mean and deviation of the radius
    np.testing.assert_allclose(moments[12], (9 / 5) ** 0.25, atol=1e-3)


def test_moments_of_a_degenerate_cloud_are_finite() -> None:
    assert torch.isfinite(shape_moments(torch.ones(2, 30, 3))).all()
    assert torch.isfinite(shape_moments(torch.randn(2, 1, 3))).all()


def test_neighbours_tell_the_boxes_apart_in_any_pose(context: CellContext) -> None:
    train = make_data(30, 400)
    predictor = fit(KNNMoments(), train, context)
    test = make_data(9, 300).train.all()
    turned = test["points"].double() @ random_rotation(1) * 2 + 4
    logits = predictor.logits({"points": turned.float()})
    assert torch.equal(logits.argmax(1), test["label"])
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(9), atol=1e-4, rtol=0)
    alone = torch.cat([predictor.logits({"points": turned[i : i + 1].float()}) for i in range(9)])
    torch.testing.assert_close(alone, logits)


def test_more_neighbours_than_items(context: CellContext) -> None:
    predictor = fit(KNNMoments(k=50), make_data(4), context)
    assert predictor.logits({"points": torch.randn(2, 30, 3)}).shape == (2, 3)


@pytest.mark.parametrize("name", ["knn_moments", "majority_label", "nearest_labelled_point"])
def test_yaml_builds_a_trivial_method(name: str) -> None:
    spec = Catalog().spec("method", name)
    assert spec.trivial
    assert isinstance(build_method(spec, spec.parameters), tuple(METHODS))
