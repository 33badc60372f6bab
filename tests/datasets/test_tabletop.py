"""The ray tracer against brute force and closed forms; the tabletop's cameras, depth, light and cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adlbench.benchmark.api import DataError
from adlbench.datasets.generated import raytracing, tabletop
from adlbench.datasets.generated.raytracing import Box, Cylinder, Primitive, Scene, Sphere, Torus
from adlbench.datasets.novel_view_synthesis.tabletop import Tabletop


def sdf(shape: Primitive, p: np.ndarray) -> np.ndarray:
    """Signed distances in their textbook form, written apart from the intersections."""
    if isinstance(shape, Sphere):
        return np.linalg.norm(p, axis=0) - shape.radius
    if isinstance(shape, Torus):
        return np.hypot(np.hypot(p[0], p[1]) - shape.major, p[2]) - shape.minor
    if isinstance(shape, Cylinder):
        q = np.stack([np.hypot(p[0], p[1]) - shape.radius, np.abs(p[2]) - shape.half_height])
    else:
        assert isinstance(shape, Box)
        q = np.abs(p) - np.array(shape.half)[:, None]
    return np.linalg.norm(np.maximum(q, 0), axis=0) + np.minimum(q.max(axis=0), 0)


SHAPES = [Sphere(0.7), Box((0.5, 0.3, 0.8)), Cylinder(0.4, 0.6), Torus(0.6, 0.2)]


def bundle(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    origin = raytracing.normalised(rng.normal(size=(3, count))) * 3.0
    target = rng.uniform(-0.8, 0.8, size=(3, count))
    return origin.astype(np.float32), raytracing.normalised(target - origin).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_intersections_equal_marching_along_the_signed_distance(shape: Primitive) -> None:
    origin, direction = bundle()
    found = shape.intersect(origin, direction)
    t = np.zeros(origin.shape[1])
    closest = np.full(origin.shape[1], np.inf)
    for _ in range(2000):
        step = sdf(shape, origin + t * direction)
        closest = np.minimum(closest, step)
        t = t + np.where((step > 1e-6) & (t < 10.0), step, 0.0)
    hit = closest < 1e-5
    facing = np.abs(raytracing.dot(shape.normal(origin + np.where(hit, t, 0.0) * direction), direction))
    clear = np.where(hit, facing > 0.1, closest > 1e-3)  # rays that graze may fall on either side
    assert 0.2 < hit.mean() < 0.9
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(np.isfinite(found[clear]), hit[clear])
    both = hit & clear
    assert np.abs(found[both] - t[both]).max() < 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_normals_are_the_gradient_of_the_signed_distance(shape: Primitive) -> None:
    origin, direction = bundle()
    distance = shape.intersect(origin, direction)
    hit = np.isfinite(distance)
    point = (origin + np.where(hit, distance, 0.0) * direction)[:, hit].astype(np.float64)
    steps = 1e-4 * np.eye(3)[:, :, None]
    gradient = np.stack([sdf(shape, point + step) - sdf(shape, point - step) for step in steps]) / 2e-4
    smooth = np.abs(np.linalg.norm(gradient, axis=0) - 1.0) < 1e-3  # not on an edge
    assert smooth.mean() > 0.95
    assert (raytracing.dot(gradient, shape.normal(point))[smooth] > 0.999).mean() > 0.995
    np.testing.assert_allclose(np.linalg.norm(shape.normal(point), axis=0), 1.0, atol=1e-5)


@pytest.mark.parametrize("n_v", [0.5, 0.9])
def test_ggx_reflects_no_more_than_it_receives(n_v: float) -> None:
    """Its integral over the hemisphere, times n_l: below 1, near 1 when smooth, and (1 - ln 2) 2 / (1 + n_v) at alpha 1."""
    u = (np.indices((1000, 1000)).reshape(2, -1) + 0.5) / 1000
    sine = np.sqrt(1 - u[0] ** 2)
    light = np.stack([sine * np.cos(2 * np.pi * u[1]), sine * np.sin(2 * np.pi * u[1]), u[0]])
    view = np.array([np.sqrt(1 - n_v**2), 0.0, n_v])[:, None]
    n_h = raytracing.normalised(light + view)[2]
    share = {r: 2 * np.pi * (raytracing.ggx(n_h, u[0], np.array(n_v), r) * u[0]).mean() for r in (0.3, 0.5, 1.0)}
    assert 0.95 < share[0.3] < 1.0
    assert share[0.5] < share[0.3]
    assert share[1.0] == pytest.approx((1 - np.log(2)) * 2 / (1 + n_v), abs=1e-4)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return tabletop.make_scene(np.random.default_rng(0))


@pytest.fixture(scope="module")
def views(scene: Scene) -> tabletop.Views:
    return tabletop.render(scene, tabletop.orbit(6, 0.3), 48, 2)


def test_cameras_look_at_the_table_from_above(views: tabletop.Views) -> None:
    for matrix, intrinsics in zip(views.world_to_camera, views.intrinsics):
        rotation = matrix[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)
        eye = -rotation.T @ matrix[:3, 3]
        outward = (eye - tabletop.CENTRE) / tabletop.CAMERA_DISTANCE
        assert np.linalg.norm(outward) == pytest.approx(1.0, abs=1e-5)
        assert tabletop.ELEVATION[0] < np.arcsin(outward[2]) < tabletop.ELEVATION[1]
        centre = intrinsics @ (rotation @ tabletop.CENTRE + matrix[:3, 3])
        np.testing.assert_allclose(centre[:2] / centre[2], [24.0, 24.0], atol=1e-4)
        higher = intrinsics @ (rotation @ (tabletop.CENTRE + np.array([0, 0, 0.1])) + matrix[:3, 3])
        assert higher[1] / higher[2] < 23.5  # up in the world is up in the picture: y points down


def unproject(views: tabletop.Views, index: int) -> np.ndarray:
    """World points [3, R] of a view's depth map, through pixel centres."""
    row, column = np.nonzero(views.depth[index])
    pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))])
    camera = np.linalg.inv(views.intrinsics[index].astype(np.float64)) @ pixels * views.depth[index][row, column]
    matrix = views.world_to_camera[index].astype(np.float64)
    return matrix[:3, :3].T @ (camera - matrix[:3, 3:])


def test_depth_is_z_depth_of_a_surface_within_the_schema(scene: Scene, views: tabletop.Views) -> None:
    for index in range(len(views.depth)):
        points = unproject(views, index)
        nearest = np.min([sdf(thing.shape, thing.local(points.astype(np.float32))) for thing in scene.things], axis=0)
        assert np.abs(nearest).max() < 2e-3
        assert np.linalg.norm(points - np.array(tabletop.CENTRE)[:, None], axis=0).max() < tabletop.RADIUS
        eye = -views.world_to_camera[index][:3, :3].T @ views.world_to_camera[index][:3, 3]
        distance = np.linalg.norm(points - eye[:, None], axis=0)
        assert distance.min() > tabletop.NEAR
        assert distance.max() < tabletop.FAR


def test_depth_agrees_between_views(views: tabletop.Views) -> None:
    """A point seen in one view is, in any other, either at the depth found there or hidden behind it."""
    size = views.depth.shape[1]
    for source in range(3):
        points = unproject(views, source)
        for target in range(3, 6):
            matrix = views.world_to_camera[target].astype(np.float64)
            camera = matrix[:3, :3] @ points + matrix[:3, 3:]
            pixel = views.intrinsics[target] @ camera
            column, row = np.floor(pixel[:2] / pixel[2]).astype(int)
            assert ((column >= 0) & (column < size) & (row >= 0) & (row < size)).all()
            # the point lies between pixel centres: one of the nine around it shows the same surface or one before it
            around = np.pad(views.depth[target], 1, constant_values=0)
            nine = np.stack([around[row + i, column + j] for i in range(3) for j in range(3)])
            first = np.where(nine == 0, np.inf, nine).min(axis=0)
            assert np.isfinite(first).all()
            assert (camera[2] > first - 0.01).mean() > 0.99
            same = np.abs(nine - camera[2]).min(axis=0) < 0.05
            assert same.mean() > 0.45


def test_background_is_white_and_everything_is_in_the_picture(views: tabletop.Views) -> None:
    empty = views.depth == 0
    assert 0.3 < empty.mean() < 0.8
    corners = views.image[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all()
    border = np.concatenate([views.depth[:, 0], views.depth[:, -1], views.depth[:, :, 0], views.depth[:, :, -1]])
    assert (border == 0).all()


def test_the_direction_matters_on_glossy_things_and_hardly_on_matt_ones(scene: Scene) -> None:
    """The same points of the surface from two sides: the mirror changes, the marbled sphere does not."""
    change = {}
    for name, thing in (("mirror", scene.things[1]), ("matt", scene.things[2]), ("pearl", scene.things[6])):
        centre = np.array(thing.centre)
        lamp = np.array(scene.lamp_centre) - centre
        eyes = [
            centre + 3 * raytracing.normalised(lamp / np.linalg.norm(lamp) + side) for side in (0.0, [0.5, -0.5, 0.0])
        ]
        points = centre[:, None] + thing.shape.bound * raytracing.normalised(
            np.random.default_rng(0).normal(size=(3, 200)) * 0.25 + (lamp / np.linalg.norm(lamp))[:, None]
        )
        colours = []
        for eye in eyes:
            direction = raytracing.normalised(points - eye[:, None]).astype(np.float32)
            origin = np.repeat(eye[:, None], 200, axis=1).astype(np.float32)
            colour, hit = scene.radiance(origin, direction, np.zeros((2, 200), dtype=np.float32))
            assert hit.all()
            colours.append(raytracing.srgb(colour))
        change[name] = np.abs(colours[0] - colours[1]).mean()
    assert change["matt"] < 0.02
    assert change["mirror"] > 5 * change["matt"]
    assert change["pearl"] > 2 * change["matt"]


def test_shadows_are_dark_and_their_borders_soft(scene: Scene) -> None:
    """From a point of the table behind an object the lamp is hidden; along a line out of it, more and more is seen."""
    thing = scene.things[3]
    away = np.array(thing.centre[:2]) - np.array(scene.lamp_centre[:2])
    away /= np.linalg.norm(away)
    beside = np.array([-away[1], away[0]])
    line = np.linspace(0.0, 0.6, 61)
    ground = np.array(thing.centre[:2])[:, None] + 0.3 * away[:, None] + beside[:, None] * line
    point = np.concatenate([ground, np.full((1, 61), 1e-3)]).astype(np.float32)
    visible = np.zeros(61)
    for disc in tabletop._disc(64).T:
        to_lamp = scene.lamp_points(np.repeat(disc[:, None], 61, axis=1)) - point
        limit = np.linalg.norm(to_lamp, axis=0)
        visible += ~scene.occluded(point, (to_lamp / limit).astype(np.float32), limit)
    visible /= 64
    assert visible[0] == 0.0
    assert visible.max() == 1.0
    assert ((visible > 0.05) & (visible < 0.95)).sum() >= 3


def test_the_lamp_faces_the_origin(scene: Scene) -> None:
    points = scene.lamp_points(tabletop._disc(100))
    offset = points - np.array(scene.lamp_centre)[:, None]
    assert np.abs(raytracing.dot(offset, np.array(scene.lamp_centre)[:, None])).max() < 1e-5
    assert np.linalg.norm(offset, axis=0).max() <= scene.lamp_radius * 1.0001


def test_supersampling_converges_to_the_pixel_integral(scene: Scene) -> None:
    camera = tabletop.orbit(6, 0.3)[2:3]
    fine = tabletop.render(scene, camera, 24, 12).image.astype(float)
    error = [np.square(tabletop.render(scene, camera, 24, n).image - fine).mean() for n in (1, 2, 4)]
    assert error[0] > 4 * error[1] > 8 * error[2]


def test_same_seed_same_views_another_seed_another_scene(views: tabletop.Views) -> None:
    make = lambda seed: tabletop.generate(seed, 16, 3, 2, supersampling=1)  # noqa: E731
    (first, test), (again, _), (other, _) = make(0), make(0), make(1)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert np.abs(first.image.astype(int) - other.image).mean() > 5
    # no test view repeats a training view
    between = np.linalg.norm(first.world_to_camera[:, None] - test.world_to_camera[None], axis=(-2, -1))
    assert between.min() > 0.1


def test_the_dataset_and_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = Tabletop(image_size=16, num_train=4, num_test=2)
    assert dataset.missing() is None
    schema = dataset.schema()
    train, test = dataset.load("all", "train"), dataset.load("all", "test")
    assert (len(train), len(test)) == (schema.num_train, schema.num_test) == (4, 2)
    items = train.all()
    assert set(items) == set(schema.fields)
    assert items["image"].shape == (4, 16, 16, 3)
    assert items["depth"].shape == (4, 16, 16)
    monkeypatch.setattr(tabletop, "generate", None)  # from here on everything comes from the cache
    again = Tabletop(image_size=16, num_train=4, num_test=2)
    assert again.fingerprint() == dataset.fingerprint()
    with pytest.raises(TypeError):
        Tabletop(image_size=16, num_train=4, num_test=3).load("all", "train")


@pytest.mark.parametrize("wrong", [{"num_train": 1}, {"num_test": 0}, {"image_size": 0}])
def test_impossible_scenes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="at least 2 training views"):
        Tabletop(**wrong).schema()
