"""Furniture as pictures, pairs and voxels; heads; light and motion on the tabletop; the sonnets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adlbench.benchmark.api import DataError
from adlbench.benchmark.config import Catalog, build_dataset
from adlbench.datasets.classification.furniture_pictures import FurniturePictures
from adlbench.datasets.classification.furniture_voxels import FurnitureVoxels
from adlbench.datasets.generated import head, tabletop, tabletop_variants
from adlbench.datasets.generated.furniture import make_shape, voxel_centres
from adlbench.datasets.generated.furniture_pictures import DISTANCE, camera_around, grid_set, picture_set, seen_from
from adlbench.datasets.generated.raytracing import Ellipsoid, normalised
from adlbench.datasets.novel_view_synthesis.head import Heads
from adlbench.datasets.novel_view_synthesis.tabletop import TabletopLit, TabletopMoving
from adlbench.datasets.text.sonnets import Sonnets, text
from adlbench.datasets.translation.furniture_pairs import FurniturePairs, palette

SMALL = {"train_per_class": 2, "test_per_class": 1, "classes": ("chair", "vase")}


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        picture_set.cache_clear(), grid_set.cache_clear()
        yield
        picture_set.cache_clear(), grid_set.cache_clear()


def test_pictures_pairs_and_domains() -> None:
    dataset = FurniturePictures(**SMALL, size=32)
    schema, train = dataset.schema(), dataset.load("all", "train").all()
    assert train["image"].shape == (4, 3, 32, 32)
    assert sorted(train["label"].tolist()) == [0, 0, 1, 1]
    assert schema.classes == ("chair", "vase")
    empty = {}
    for source in ("labels", "edges", "plain"):
        pairs = FurniturePairs(source=source, **SMALL, size=32).load("all", "train").all()
        empty[source] = (pairs["image"] == 255).all(1)
        if source != "plain":
            assert (pairs["target_image"] == train["image"]).all()
        else:
            assert (pairs["image"] == train["image"]).all()
            darker = pairs["target_image"].float().mean() < pairs["image"].float().mean()
            assert darker  # stripes are dark
            assert ((pairs["target_image"] == 255).all(1) == empty["plain"]).float().mean() > 0.95
    assert 0.3 < float(empty["labels"].float().mean()) < 0.95
    assert (~empty["plain"])[~empty["labels"]].float().mean() > 0.95  # what has a label is in the picture
    on_edge = ~empty["edges"]
    assert 0.01 < float(on_edge.float().mean()) < 0.4
    assert len(np.unique(palette()[:18], axis=0)) == 18
    unpaired = FurniturePairs(source="plain", paired=False, **SMALL, size=32)
    first, test = unpaired.load("all", "train").all(), unpaired.load("all", "test").all()
    assert len(first["image"]) == unpaired.schema().num_train == 2
    assert (first["image"] == train["image"][:2]).all()
    paired = FurniturePairs(source="plain", **SMALL, size=32).load("all", "test").all()
    assert (test["target_image"] == paired["target_image"]).all()
    with pytest.raises(DataError, match="sketch"):
        FurniturePairs(source="sketch", **SMALL, size=32).load("all", "test")  # type: ignore[arg-type]


def test_voxels_are_those_of_the_shape() -> None:
    items = FurnitureVoxels(**SMALL, resolution=16).load("all", "train").all()
    assert items["sdf_grid"].shape == (4, 16, 16, 16)
    assert (items["occupancy"] == (items["sdf_grid"] < 0)).all()
    assert items["occupancy"].flatten(1).any(1).all()
    assert set(np.unique(items["ternary"])) == {0, 1, 2}


def test_one_view_tells_free_surface_and_unknown() -> None:
    """No free voxel is deep inside; surface voxels lie at the surface; unknown ones are hidden: their ray meets the shape."""
    shape, camera = make_shape("cabinet", "train", 0), camera_around(np.random.default_rng(0))
    resolution = 24
    state = seen_from(shape, camera, resolution).ravel()
    centres = voxel_centres(resolution)
    distance = shape.sdf(centres)
    half = np.sqrt(3) / resolution
    assert distance[state == 0].min() > -1.5 * half
    assert np.abs(distance[state == 1]).max() < 4 * half
    eye = -camera[:3, :3].T @ camera[:3, 3]
    assert np.linalg.norm(eye) == pytest.approx(DISTANCE)
    for name, value, expected in (("unknown", 2, 1.0), ("free", 0, 0.0)):
        chosen = centres[state == value][::37]
        steps = eye + np.linspace(0, 1, 400)[:, None, None] * (chosen - eye)  # [400, n, 3]
        blocked = (shape.sdf(steps.reshape(-1, 3)).reshape(400, -1) < 0)[:-8].any(0)
        assert abs(blocked.mean() - expected) < 0.1, name


def test_ellipsoids_meet_rays_where_their_equation_says() -> None:
    radii = np.array([0.6, 0.3, 0.8])
    rng = np.random.default_rng(1)
    origin = 3 * normalised(rng.normal(size=(3, 2000)))
    direction = normalised(rng.uniform(-0.6, 0.6, size=(3, 2000)) - origin)
    shape = Ellipsoid((0.6, 0.3, 0.8))
    found = shape.intersect(origin.astype(np.float32), direction.astype(np.float32))
    o, d = origin / radii[:, None], direction / radii[:, None]
    a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1
    inside = b**2 - a * c
    clear = np.abs(inside) > 0.05
    expected = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
    np.testing.assert_array_equal(np.isfinite(found[clear]), np.isfinite(expected[clear]))
    hit = clear & np.isfinite(expected)
    assert 0.2 < hit.mean() < 0.9
    np.testing.assert_allclose(found[hit], expected[hit], atol=1e-4)
    point = (origin + np.where(hit, expected, 0) * direction)[:, hit]
    gradient = normalised(point / radii[:, None] ** 2)
    np.testing.assert_allclose(shape.normal(point), gradient, atol=1e-6)


def test_heads_move_only_what_an_expression_moves() -> None:
    places = head.TEST_CAMERAS[1:2]
    neutral = head.photograph(0, np.zeros((1, 4)), places, 32)
    full = head.photograph(0, np.eye(4), places, 32)
    assert full["expression"].tolist() == np.eye(4).tolist()
    changed = (np.abs(full["image"].astype(int) - neutral["image"]) > 12).any(-1)
    rows = [np.nonzero(change.any(1))[0] for change in changed]
    middle = {name: row.mean() for name, row in zip(head.EXPRESSION, rows)}
    assert middle["brows raised"] < middle["eyes closed"] < middle["mouth open"]
    assert (changed.mean((1, 2)) < 0.25).all()
    other = head.photograph(1, np.zeros((1, 4)), places, 32)
    assert np.abs(other["image"].astype(int) - neutral["image"]).mean() > 3


def test_heads_as_a_dataset(tmp_path: Path) -> None:
    dataset = Heads(subjects=2, train_expressions=2, test_expressions=1, image_size=12)
    assert dataset.instances() == ("subject_0", "subject_1")
    schema = dataset.schema("subject_1")
    train, test = dataset.load("subject_1", "train").all(), dataset.load("subject_1", "test").all()
    assert set(train) == set(schema.fields)
    assert (len(train["image"]), len(test["image"])) == (schema.num_train, schema.num_test) == (8, 4)
    assert (train["expression"][:4] == 0).all()
    assert len(train["expression"].unique(dim=0)) == 2
    for items in (train, test):
        eyes = -(items["world_to_camera"][:, :3, :3].transpose(1, 2) @ items["world_to_camera"][:, :3, 3:])[..., 0]
        np.testing.assert_allclose(
            np.linalg.norm(eyes.numpy() - np.array(head.CENTRE), axis=1), head.DISTANCE, rtol=1e-5
        )
        seen = items["depth"] > 0
        assert items["depth"][seen].min() > schema.near
        assert items["depth"].max() < schema.far
        assert (items["image"][:, 0, 0] == 255).all()
    with pytest.raises(DataError, match="subject_0, subject_1"):
        dataset.schema("subject_2")


def test_light_changes_colours_and_nothing_else() -> None:
    dataset = TabletopLit(image_size=16, num_train=6, num_test=2, lights=2)
    train = dataset.load("all", "train").all()
    plain = tabletop.generate(0, 16, 6, 2, supersampling=1)[0]
    np.testing.assert_array_equal(train["depth"], plain.depth)
    assert sorted(train["appearance"].tolist()) == [0, 0, 0, 1, 1, 1]
    assert set(train) == set(dataset.schema().fields)
    lights = [tabletop_variants.lit(0, 16, 2, 1, 2)[0] for _ in range(2)]
    np.testing.assert_array_equal(lights[0]["image"], lights[1]["image"])


def test_time_moves_the_objects() -> None:
    scene = tabletop.make_scene(np.random.default_rng(0))
    assert tabletop_variants.at(scene, 0.0).things[2].centre == scene.things[2].centre
    camera = tabletop.orbit(3, 0.0)[:1]
    still = tabletop.render(scene, camera, 24, 1)
    later = tabletop.render(tabletop_variants.at(scene, 0.5), camera, 24, 1)
    assert (np.abs(still.depth - later.depth) > 0.01).mean() > 0.01
    for time in np.linspace(0, 1, 9):
        for thing in tabletop_variants.at(scene, time).things[1:]:
            reach = np.linalg.norm(np.array(thing.centre) - tabletop.CENTRE) + thing.shape.bound
            assert reach < tabletop.RADIUS + 0.05
    dataset = TabletopMoving(image_size=12, num_train=4, num_test=2)
    train, test = dataset.load("all", "train").all(), dataset.load("all", "test").all()
    assert sorted(train["time"].tolist()) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert sorted(test["time"].tolist()) == [0.25, 0.75]


def test_sonnets() -> None:
    dataset = Sonnets()
    schema = dataset.schema()
    train, test = dataset.load("all", "train").all()["tokens"], dataset.load("all", "test").all()["tokens"]
    assert train.shape == (schema.num_train, 65)
    assert test.shape == (schema.num_test, 65)
    assert (train[1:, 0] == train[:-1, -1]).all()
    joined = "".join(schema.vocabulary[i] for i in [*train[:, :-1].flatten().tolist()])
    assert text().startswith(joined)
    assert len(test) > 10
    with pytest.raises(DataError, match="length=9000"):
        Sonnets(length=9000).schema()


def test_sonnets_have_fourteen_lines_of_verse() -> None:
    sonnets = text().strip().split("\n\n")
    numbers, poems = sonnets[::2], sonnets[1::2]
    assert len(numbers) == len(poems) == 25
    assert all(number.isdigit() for number in numbers)
    assert all(len(poem.splitlines()) == 14 for poem in poems)
    assert all(25 < len(line) < 60 for poem in poems for line in poem.splitlines())


GENERATED = [name for name in Catalog().names("dataset") if Catalog().spec("dataset", name).generated]


@pytest.mark.parametrize("name", GENERATED)
def test_every_generated_dataset_has_a_schema_and_says_that_it_is_generated(name: str) -> None:
    spec = Catalog().spec("dataset", name)
    assert spec.title.endswith("(generated)")
    dataset = build_dataset(spec)
    assert dataset.missing() is None
    for instance in dataset.instances():
        schema = dataset.schema(instance)
        assert schema.num_train > 0
        assert schema.num_test > 0
        assert schema.fields
