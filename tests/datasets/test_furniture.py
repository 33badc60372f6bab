"""Generated furniture: the shapes, their samples, and the data sets made of them."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from adlbench.benchmark.api import DataError, Modality
from adlbench.datasets.classification.furniture import Furniture
from adlbench.datasets.generated import furniture_sets
from adlbench.datasets.generated.furniture import ALL_CLASSES, CLASSES, PARTS, RADIUS, Shape, make_shape
from adlbench.datasets.reconstruction.furniture_shapes import FurnitureShapes
from adlbench.datasets.segmentation.furniture_parts import FurnitureParts

NUMBERS = range(4)
SHAPES = {(name, i): make_shape(name, "train", i) for name in ALL_CLASSES for i in NUMBERS}
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=[f"{name} {i}" for name, i in SHAPES])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    furniture_sets.point_set.cache_clear()
    furniture_sets.shape_set.cache_clear()


# ------------------------------------------------------------------------------------------------------------- one shape
@SHAPE
def test_surface_points_are_outside_of_every_part_and_face_outwards(shape: Shape) -> None:
    points, normals, labels = shape.surface(1000, np.random.default_rng(0))
    np.testing.assert_allclose(shape.sdf(points), 0, atol=1e-8)
    step = 1e-4
    outward = shape.sdf(points + step * normals) > step / 2
    assert outward.mean() > 0.97  # but for those in a crease
    assert set(labels) <= {PARTS.index(part.name) for part in shape.parts}


@SHAPE
def test_distance_is_exact_outside_and_a_bound_of_the_depth_inside(shape: Shape) -> None:
    surface = shape.surface(30000, np.random.default_rng(1))[0]
    points = np.random.default_rng(2).uniform(-1, 1, (2000, 3))
    brute, distance = cKDTree(surface).query(points)[0], shape.sdf(points)
    spacing = 5 * np.sqrt(8 / 30000)
    outside = distance > 0
    assert np.abs(brute - distance)[outside].max() < spacing
    assert (np.abs(distance) <= brute + 1e-9).all()


@SHAPE
def test_shape_fills_the_unit_sphere_and_its_parts_are_watertight(shape: Shape) -> None:
    vertices, faces, labels = shape.mesh()
    assert np.linalg.norm(vertices, axis=1).max() == pytest.approx(RADIUS)
    np.testing.assert_allclose(vertices.min(0) + vertices.max(0), 0, atol=1e-9)
    assert len(faces) == len(labels)
    for part in shape.parts:
        mesh = trimesh.Trimesh(*part.mesh(), process=False)
        assert mesh.is_watertight
        assert mesh.volume > 0


@SHAPE
def test_shape_is_in_one_piece(shape: Shape) -> None:
    """Every part reaches into another one, so that all of them hang together."""
    samples = [part.sample(600, np.random.default_rng(3))[0] for part in shape.parts]
    reached, frontier = {0}, [0]
    while frontier:
        i = frontier.pop()
        for j, part in enumerate(shape.parts):
            touches = (part.sdf(samples[i]) < 1e-3).any() or (shape.parts[i].sdf(samples[j]) < 1e-3).any()
            if j not in reached and touches:
                reached.add(j)
                frontier.append(j)
    assert len(reached) == len(shape.parts)


def test_samples_are_drawn_as_in_deepsdf() -> None:
    shape = make_shape("sofa", "train", 0)
    points, sdf = shape.sdf_samples(20000, np.random.default_rng(0))
    np.testing.assert_array_equal(sdf, shape.sdf(points))
    # |distance| of near samples: at most their displacement, whose mean per axis is as stated.
    assert (np.abs(sdf) < 3 * np.sqrt(0.00025)).mean() > 0.45
    assert 0.03 < (np.linalg.norm(points, axis=1) > 0.99).mean() + (np.abs(sdf) > 0.2).mean() < 0.2
    uniform = shape.sdf_samples(20000, np.random.default_rng(0), near=0.0)[0]
    radius = np.linalg.norm(uniform, axis=1)
    assert radius.max() <= 1
    assert (radius < 0.5).mean() == pytest.approx(1 / 8, abs=0.01)


def test_occupancy_holds_the_volume() -> None:
    shape = make_shape("cabinet", "train", 0)
    grid = shape.occupancy(32)
    points = np.random.default_rng(0).uniform(-1, 1, (40000, 3))
    assert grid.mean() == pytest.approx((shape.sdf(points) < 0).mean(), abs=0.01)
    x, y, z = np.argwhere(grid)[0]
    assert shape.sdf((np.array([[x, y, z]]) + 0.5) / 16 - 1)[0] < 0


def test_posing_moves_everything_together() -> None:
    shape = make_shape("chair", "train", 1)
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    posed = shape.posed(yaw=np.pi / 2, scale=0.5)
    turned = np.stack([points[:, 2], points[:, 1], -points[:, 0]], 1)  # z goes to x
    np.testing.assert_allclose(posed.sdf(0.5 * turned), 0.5 * shape.sdf(points), atol=1e-9)


def test_shapes_depend_on_their_name_and_nothing_else() -> None:
    a, b = make_shape("lamp", "train", 3), make_shape("lamp", "train", 3)
    np.testing.assert_array_equal(a.mesh()[0], b.mesh()[0])
    others = [make_shape("lamp", "test", 3), make_shape("lamp", "train", 4), make_shape("lamp", "train", 3, seed=1)]
    for other in others:
        assert a.mesh()[0].shape != other.mesh()[0].shape or not np.allclose(a.mesh()[0], other.mesh()[0])


def test_unknown_class_is_named() -> None:
    with pytest.raises(DataError, match=r"sofas.*sofa"):
        make_shape("sofas", "train", 0)


# ---------------------------------------------------------------------------------------------------------- the data sets
def test_point_sets() -> None:
    small = {"train_per_class": 3, "test_per_class": 2, "num_points": 64}
    dataset, parts = Furniture(**small), FurnitureParts(**small, turn=True, merge={})
    schema = parts.schema()
    assert schema.modality == Modality.POINTS
    assert (schema.classes, schema.parts, schema.num_points) == (CLASSES, PARTS, 64)
    assert set(schema.fields) == set(parts.load("all", "train").fields)
    for split, per_class in (("train", 3), ("test", 2)):
        items = parts.load("all", split).all()
        assert items["points"].shape == items["normals"].shape == (10 * per_class, 64, 3)
        assert items["points"].dtype == items["normals"].dtype
        assert items["label"].bincount().tolist() == [per_class] * 10
        assert items["points"].norm(dim=-1).max() < 1
        alone = dataset.load("all", split).all()
        assert set(alone) == {"points", "normals", "label"}
        assert (alone["points"] == items["points"]).all()
    assert schema.num_train == len(parts.load("all", "train"))
    assert schema.num_test == len(parts.load("all", "test"))


def test_small_parts_count_as_what_carries_them() -> None:
    size = {"train_per_class": 4, "num_points": 128}
    whole = FurnitureParts(**size, merge={}).load("all", "train").all()["point_label"]
    dataset = FurnitureParts(**size)
    merged, names = dataset.load("all", "train").all()["point_label"], dataset.schema().parts
    assert "stretcher" not in names
    assert (merged == names.index("leg")).sum() == sum((whole == PARTS.index(p)).sum() for p in ("leg", "stretcher"))
    assert (merged == names.index("seat")).sum() == (whole == PARTS.index("seat")).sum()
    with pytest.raises(DataError, match="legs"):
        FurnitureParts(merge={"legs": "seat"}).schema()


def test_point_sets_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Furniture(train_per_class=1, num_points=16)
    first = dataset.load("all", "train").all()["points"]
    furniture_sets.point_set.cache_clear()
    monkeypatch.setattr(furniture_sets, "make_shape", None)
    assert (dataset.load("all", "train").all()["points"] == first).all()


def test_shapes_stand_at_any_angle_about_the_up_axis() -> None:
    """The direction in which a sofa is long is anywhere; cabinets stand upright but for the tilt."""
    items = furniture_sets.point_set(30, "train", 256, 12.0, 0)
    sofas = items["points"][items["label"] == CLASSES.index("sofa")][..., [0, 2]].astype(float)
    covariance = np.einsum("npi,npj->nij", sofas, sofas)
    axis = np.linalg.eigh(covariance)[1][:, :, -1]
    angle = np.arctan2(axis[:, 1], axis[:, 0]) % np.pi
    assert (np.histogram(angle, bins=3, range=(0, np.pi))[0] >= 4).all()


def test_shape_sets() -> None:
    dataset = FurnitureShapes(
        classes=("mug", "sofa"), num_train=3, num_test=2, num_sdf=100, num_surface=50, num_test_surface=70
    )
    assert dataset.instances() == ("mug", "sofa")
    schema = dataset.schema("mug")
    assert schema.modality == Modality.SHAPE
    train, test = dataset.load("mug", "train").all(), dataset.load("mug", "test").all()
    assert set(train) == set(schema.fields)
    assert train["sdf_points"].shape == (3, 100, 3)
    assert test["sdf"].shape == (2, 100)
    assert train["surface_points"].shape == (3, 50, 3)
    assert test["surface_normals"].shape == (2, 70, 3)
    shape = make_shape("mug", "test", 1)
    np.testing.assert_allclose(shape.sdf(test["sdf_points"][1].double().numpy()), test["sdf"][1], atol=1e-6)
    with pytest.raises(DataError, match=r"chair.*mug, sofa"):
        dataset.load("chair", "train")


def moments(points: np.ndarray, order: int) -> np.ndarray:
    """The centroid and all central moments up to ``order``."""
    centred = points - points.mean(1, keepdims=True)
    features = [points.mean(1)]
    for degree in range(2, order + 1):
        axes = combinations_with_replacement(range(3), degree)
        features.append(np.stack([np.prod(centred[..., list(a)], -1).mean(1) for a in axes], 1))
    return np.concatenate(features, 1)


def test_more_classes_on_request() -> None:
    assert len(ALL_CLASSES) >= 12
    assert set(CLASSES) < set(ALL_CLASSES)
    dataset = Furniture(train_per_class=1, num_points=32, classes=("vase", "bed"))
    items = dataset.load("all", "train").all()
    assert dataset.schema().classes == ("vase", "bed")
    assert sorted(items["label"].tolist()) == [0, 1]
    standard = Furniture(train_per_class=1, num_points=32).load("all", "train").all()
    (bed,) = standard["points"][standard["label"] == CLASSES.index("bed")]
    assert (items["points"][items["label"] == 1][0] == bed).all()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [CLASSES, ALL_CLASSES], ids=len)
def test_moments_do_not_give_the_class_away(classes: tuple[str, ...]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dataset = Furniture(classes=classes)
    train, test = dataset.load("all", "train").all(), dataset.load("all", "test").all()
    for order in (2, 3, 4):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=10, max_iter=3000))
        model.fit(moments(train["points"].numpy().astype(float), order), train["label"])
        accuracy = model.score(moments(test["points"].numpy().astype(float), order), test["label"])
        assert 0.2 < accuracy < 0.7, order
