"""PointNet's classifier and segmenter: sizes, schedules, training, resuming, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from adlbench.benchmark.api import (
    AbsentSplit,
    AdlbenchError,
    ArraySplit,
    Budget,
    DataError,
    DataSchema,
    Modality,
    TrainingData,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import Catalog, build_method
from adlbench.benchmark.context import CellContext
from adlbench.methods.classification.pointnet import PointNet, PointNetClassifier
from adlbench.methods.nn.pointnet import orthogonality_loss
from adlbench.methods.segmentation.pointnet import PointNetSegmentation, PointNetSegmenter

MakeContext = Callable[..., CellContext]
SMALL = {"before": (8, 16), "after": (16,), "pooled": 64, "head": (32, 32, 16)}


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    def make(steps: int = 10) -> CellContext:
        torch.manual_seed(0)
        return CellContext(
            device=torch.device("cpu"),
            precision="fp32",
            budget=Budget(steps=steps),
            work_folder=tmp_path,
            seed_parts=("test",),
            clock=Clock(),
        )

    return make


def make_data(count: int = 24, num_points: int = 40, num_classes: int = 3) -> TrainingData:
    """Clouds stretched along y by their class; the upper points are part 1, the lower part 0."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, num_points, 3, generator=generator) * 0.2
    label = torch.arange(count) % num_classes
    points[..., 1] *= 1 + 2 * label[:, None]
    schema = DataSchema(
        Modality.POINTS,
        ("points", "label", "point_label"),
        count,
        count,
        classes=tuple(f"c{i}" for i in range(num_classes)),
        parts=("low", "high"),
        num_points=num_points,
    )
    return TrainingData(schema, ArraySplit(points=points, label=label, point_label=(points[..., 1] > 0).long()))


def run(method: Any, context: CellContext, steps: int, total: int) -> list[dict[str, float]]:
    history = []
    for _ in range(steps):
        context.progress = context.step / total
        history.append({name: float(value) for name, value in method.step().items()})
        context.step += 1
    context.progress = context.step / total
    return history


# ------------------------------------------------------------------------------------------------------------ networks
def test_number_of_parameters() -> None:
    """3.47 M for 40 classes, as counted for a PyTorch port of the paper; ours has no biases ahead of normalisations."""
    count = sum(p.numel() for p in PointNetClassifier(40).parameters())
    assert count / 1e6 == pytest.approx(3.47, abs=0.01)

    def layers(*widths: int) -> int:  # a matrix and two vectors of the normalisation each
        return sum(a * b + 2 * b for a, b in pairwise(widths))

    def tnet(k: int) -> int:
        return layers(k, 64, 128, 1024, 512, 256) + 257 * k * k

    assert count == tnet(3) + tnet(64) + layers(3, 64, 64) + layers(64, 64, 128, 1024, 512, 256) + 257 * 40


def test_part_network_concatenates_as_figure_9() -> None:
    net = PointNetSegmenter(
        num_parts=50,
        num_classes=16,
        before=(64, 128, 128),
        after=(512,),
        pooled=2048,
        head=(256, 256, 128),
        dropout=0.2,
    )
    assert net.first.linear.in_features == 3024


@pytest.mark.parametrize("training", [True, False])
def test_part_network_equals_the_plain_concatenation(training: bool) -> None:
    """The product with the shape's features, the same at all points, is taken once per shape; the result is the same."""
    torch.manual_seed(0)
    net = PointNetSegmenter(num_parts=5, num_classes=3, dropout=0.0, **SMALL).double().train(training)  # type: ignore[arg-type]
    points, label = torch.randn(4, 30, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    encoding = net.encoder(points)
    shape = torch.cat([encoding.pooled, functional.one_hot(label, 3).double()], 1)
    features = torch.cat([shape[:, None].expand(-1, 30, -1), *encoding.local], -1)
    expected = net.rest(net.first(features))
    logits, transform = net(points, label)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(transform, encoding.feature_transform)


def test_the_input_transform_turns_normals_along() -> None:
    torch.manual_seed(0)
    net = PointNetSegmenter(num_parts=4, vectors=2, dropout=0.0, **SMALL).double().eval()  # type: ignore[arg-type]
    with torch.no_grad():
        net.encoder.input_transform.transform.weight.normal_(std=0.1)
    points, normals = torch.randn(2, 2, 30, 3, dtype=torch.float64)
    transform = net.encoder.input_transform(points)
    expected = net.encoder.before[0](torch.cat([points @ transform, normals @ transform], -1))
    torch.testing.assert_close(net.encoder(torch.cat([points, normals], -1)).local[0], expected)


def test_classifier_ignores_the_order_of_points_and_segmenter_follows_it() -> None:
    points, order = torch.randn(2, 50, 3), torch.randperm(50)
    classifier = PointNetClassifier(7).eval()
    torch.testing.assert_close(classifier(points)[0], classifier(points[:, order])[0])
    net = PointNetSegmenter(num_parts=4, num_classes=0, dropout=0.2, **SMALL).eval()  # type: ignore[arg-type]
    torch.testing.assert_close(net(points)[0][:, order], net(points[:, order])[0])


def test_dropout_is_the_paper_s() -> None:
    assert [m.p for m in PointNetClassifier(4).modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]  # keeps 0.7


# ----------------------------------------------------------------------------------------------------------- schedules
def test_rate_and_momentum_decay_in_a_staircase() -> None:
    method = PointNet()
    assert method.learning_rate_at(0.0) == 1e-3
    assert method.learning_rate_at(0.99 / 12) == 1e-3
    assert method.learning_rate_at(1 / 12) == pytest.approx(0.7e-3)
    assert method.learning_rate_at(0.5) == pytest.approx(1e-3 * 0.7**6)
    assert method.learning_rate_at(1.0) == pytest.approx(1e-3 * 0.7**12)
    assert [method.norm_momentum_at(k / 12) for k in range(4)] == [0.5, 0.25, 0.125, 0.0625]
    assert method.norm_momentum_at(1.0) == 0.01  # TensorFlow's decay of .99
    assert PointNet(num_decays=100).learning_rate_at(1.0) == 1e-5


def test_parts_halve_the_rate_ten_times_and_the_momentum_five() -> None:
    method = PointNetSegmentation()
    assert method.learning_rate_at(1.0) == 1e-5
    assert method.learning_rate_at(0.35) == pytest.approx(1e-3 / 8)
    assert method.norm_momentum_at(0.35) == pytest.approx(0.25)
    assert method.norm_momentum_at(1.0) == pytest.approx(0.5 / 32)


def test_steps_follow_the_schedules(make_context: MakeContext) -> None:
    method, context = PointNet(batch_size=8), make_context()
    method.setup(make_data(), context)
    norms = [m for m in method.net.modules() if isinstance(m, nn.BatchNorm1d)]
    for progress in (0.0, 0.3, 0.9):
        context.progress = progress
        method.step()
        assert {norm.momentum for norm in norms} == {method.norm_momentum_at(progress)}
        assert method.optimizer.param_groups[0]["lr"] == method.learning_rate_at(progress)


# ------------------------------------------------------------------------------------------------------------ training
def test_loss_is_cross_entropy_plus_the_regulariser(make_context: MakeContext) -> None:
    data, method = make_data(), PointNet(dropout=0.0, regularisation=0.1)
    method.setup(data, make_context())
    with torch.no_grad():  # away from the identity, where the regulariser is 0
        method.net.encoder.feature_transform.transform.weight.normal_(std=0.01)  # type: ignore[union-attr]
    batch = data.train.all()
    terms = method.loss(method.net, batch)
    logits, transform = method.net(batch["points"])
    expected = functional.cross_entropy(logits, batch["label"]) + 0.1 * orthogonality_loss(transform)
    assert float(terms["orthogonality"].detach()) > 0.01
    torch.testing.assert_close(terms["loss"], expected)


def test_part_weights_raise_rare_parts(make_context: MakeContext) -> None:
    data = make_data()
    label = torch.zeros(24, 40, dtype=torch.int64)
    label[:, :4] = 1  # a tenth of the points
    data.train.fields["point_label"] = label  # type: ignore[attr-defined]
    method = PointNetSegmentation(part_weights=0.5, **SMALL)
    method.setup(data, make_context())
    assert float(method.weights[1] / method.weights[0]) == pytest.approx(3.0)
    assert float(method.weights[label].mean()) == pytest.approx(1.0)
    logits = torch.randn(24, 40, 2)
    losses = functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
    expected = (losses * method.weights[label.flatten()]).mean()
    torch.testing.assert_close(method.cross_entropy(logits, {"point_label": label})["loss"], expected)
    plain = PointNetSegmentation(**SMALL)
    plain.setup(data, make_context())
    assert torch.equal(plain.weights, torch.ones(2))


def test_augmentation_subsamples_turns_and_jitters() -> None:
    batch = make_data().train.all()
    generator = torch.Generator().manual_seed(3)
    still = PointNet(num_points=10, jitter_sigma=0.0).augment(dict(batch), generator)["points"]
    assert still.shape == (24, 10, 3)
    distance = torch.cdist(still[..., 1, None], batch["points"][..., 1, None]).amin(-1)
    assert float(distance.max()) < 1e-6  # heights are kept: y is up
    noisy = PointNet(num_points=10).augment(dict(batch), torch.Generator().manual_seed(3))["points"]
    assert 0 < float((noisy - still).abs().max()) <= 0.05 + 1e-6
    parts = PointNetSegmentation(num_points=10, rotation=True).augment(dict(batch), generator)
    assert torch.equal((parts["points"][..., 1] > 0).long(), parts["point_label"])


def test_evaluation_takes_the_first_points(make_context: MakeContext) -> None:
    data, method = make_data(), PointNet(num_points=16)
    method.setup(data, make_context())
    predictor, points = method.predictor(), data.train.all()["points"]
    changed = points.clone()
    changed[:, 16:] = 9.0
    with torch.no_grad():
        assert torch.equal(predictor.logits({"points": points}), predictor.logits({"points": changed}))


def test_a_classifier_learns(make_context: MakeContext) -> None:
    data, context = make_data(48), make_context()
    method = PointNet(batch_size=16, min_norm_momentum=0.5)
    method.setup(data, context)
    history = run(method, context, 24, 24)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    with torch.no_grad():
        logits = method.predictor().logits(data.train.all())
    assert float((logits.argmax(1) == data.train.all()["label"]).float().mean()) > 0.8


def test_a_segmenter_learns(make_context: MakeContext) -> None:
    data, context = make_data(48), make_context()
    method = PointNetSegmentation(batch_size=16, num_points=32, learning_rate=5e-3, min_norm_momentum=0.5, **SMALL)
    method.setup(data, context)
    run(method, context, 40, 40)
    with torch.no_grad():
        logits = method.predictor().logits({"points": data.train.all()["points"]})
    assert logits.shape == (48, 40, 2)  # every point, though training saw 32 of them
    assert float((logits.argmax(-1) == data.train.all()["point_label"]).float().mean()) > 0.85


@pytest.mark.parametrize("method", [PointNet(batch_size=8), PointNetSegmentation(batch_size=8, **SMALL)])
def test_resuming_is_bit_equal(method: PointNet, make_context: MakeContext) -> None:
    data = make_data()
    whole, context = replace(method), make_context()
    whole.setup(data, context)
    run(whole, context, 2, 4)
    saved, position, rng = whole.state_dict(), context.state_dict(), torch.get_rng_state()
    saved = torch.load(_stored(saved, context.work_folder), weights_only=True)
    run(whole, context, 2, 4)

    resumed, later = replace(method), make_context()
    resumed.setup(data, later)
    resumed.load_state_dict(saved)
    later.load_state_dict(position)
    torch.set_rng_state(rng)
    run(resumed, later, 2, 4)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def _stored(state: dict[str, Any], folder: Path) -> Path:
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


@pytest.mark.parametrize("method", [PointNet(batch_size=8), PointNetSegmentation(batch_size=8, **SMALL)])
def test_restoring_needs_no_data(method: PointNet, make_context: MakeContext) -> None:
    data, context = make_data(), make_context()
    method = replace(method)
    method.setup(data, context)
    run(method, context, 2, 2)
    points = {"points": data.train.all()["points"]}
    with torch.no_grad():
        expected = method.predictor().logits(points)
        restored = replace(method)
        restored.setup(TrainingData(data.schema, AbsentSplit(24)), make_context())
        restored.load_state_dict(method.state_dict())
        assert torch.equal(restored.predictor().logits(points), expected)


def test_training_goes_on_without_changing_a_predictor(make_context: MakeContext) -> None:
    data, context = make_data(), make_context()
    method = PointNet(batch_size=8)
    method.setup(data, context)
    predictor, points = method.predictor(), {"points": data.train.all()["points"]}
    with torch.no_grad():
        before = predictor.logits(points)
    run(method, context, 1, 1)
    with torch.no_grad():
        assert torch.equal(predictor.logits(points), before)


# ----------------------------------------------------------------------------------------------------------- bad input
def test_points_that_are_not_finite_are_named(make_context: MakeContext) -> None:
    data = make_data()
    data.train.fields["points"][5, 3, 1] = float("nan")  # type: ignore[attr-defined]
    for method in (PointNet(), PointNetSegmentation(**SMALL)):
        with pytest.raises(DataError, match=r"points.*item 5"):
            method.setup(data, make_context())


def test_a_batch_larger_than_the_set(make_context: MakeContext) -> None:
    method = PointNet(batch_size=500)
    method.setup(make_data(6), make_context())
    assert np.isfinite(float(method.step()["loss"]))


def test_one_class_only(make_context: MakeContext) -> None:
    method = PointNet(batch_size=4)
    method.setup(make_data(8, num_classes=1), make_context())
    assert float(method.step()["accuracy"]) == 1.0


def test_what_cannot_be_normalised_is_skipped() -> None:
    schema = make_data(1, num_classes=1).schema
    assert "two training items" in (PointNet().skip(schema) or "")
    assert PointNet().skip(make_data().schema) is None
    assert "batch_size" in (PointNet(batch_size=1).skip(make_data().schema) or "")
    without = replace(make_data().schema, fields=("points", "label"))
    assert "point_label" in (PointNetSegmentation().skip(without) or "")


def test_normals_are_used_where_asked_for(make_context: MakeContext) -> None:
    data = make_data()
    method = PointNetSegmentation(normals=True, batch_size=8, **SMALL)
    assert "normals" in (method.skip(data.schema) or "")
    fields = {**data.train.fields, "normals": functional.normalize(torch.randn(24, 40, 3), dim=-1)}  # type: ignore[attr-defined]
    data = TrainingData(replace(data.schema, fields=(*data.schema.fields, "normals")), ArraySplit(**fields))
    assert method.skip(data.schema) is None
    method.setup(data, make_context())
    method.step()
    batch = data.train.all()
    with torch.no_grad():
        shown = method.predictor().logits({"points": batch["points"], "normals": batch["normals"]})
        other = method.predictor().logits({"points": batch["points"], "normals": -batch["normals"]})
    assert shown.shape == (24, 40, 2)
    assert not torch.equal(shown, other)


def test_the_class_label_is_used_only_where_it_is_shown(make_context: MakeContext) -> None:
    data = make_data()
    method = PointNetSegmentation(class_label=True, batch_size=8, **SMALL)
    method.setup(data, make_context())
    method.step()
    batch = data.train.all()
    predictor = method.predictor()
    with torch.no_grad():
        shown = predictor.logits({"points": batch["points"], "label": batch["label"]})
        other = predictor.logits({"points": batch["points"], "label": (batch["label"] + 1) % 3})
        assert not torch.equal(shown, other)
        with pytest.raises(AdlbenchError, match="show_label"):
            predictor.logits({"points": batch["points"]})

    # Scenes have no class: there the network of the paper's semantic segmentation is without it.
    classless = replace(data, schema=replace(data.schema, classes=()))
    method.setup(classless, make_context())
    method.step()
    assert method.predictor().logits({"points": batch["points"]}).shape == (24, 40, 2)


@pytest.mark.parametrize("name", ["pointnet", "pointnet_seg"])
def test_yaml_builds_the_method(name: str) -> None:
    spec = Catalog().spec("method", name)
    method = build_method(spec, spec.parameters)
    assert isinstance(method, PointNet)
