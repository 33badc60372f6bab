"""The Blender reader: conventions against closed forms, errors, and silhouettes of a real scene."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adlbench.benchmark.api import DataError, data_root
from adlbench.datasets.formats import blender
from adlbench.datasets.novel_view_synthesis.nerf_synthetic import NerfSynthetic

# A camera 4 in front of the origin on the +y axis, looking at it with +z up: Blender's own matrix for that pose.
LOOKING_ALONG_MINUS_Y = [[-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 4.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def write_scene(folder: Path, views: int = 3, size: tuple[int, int] = (4, 6), pixels: np.ndarray | None = None) -> Path:
    """A scene folder with train and test splits of equal pictures; returns the training transforms."""
    height, width = size
    rgba = np.full((height, width, 4), 255, dtype=np.uint8) if pixels is None else pixels
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        frames = []
        for index in range(views):
            Image.fromarray(rgba).save(folder / split / f"r_{index}.png")
            frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": LOOKING_ALONG_MINUS_Y})
        content = {"camera_angle_x": 2 * np.arctan(0.5), "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder / "transforms_train.json"


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def test_opengl_camera_becomes_opencv(tmp_path: Path) -> None:
    views = blender.read_views(blender.read_frames(write_scene(tmp_path)))
    # seen from +y with z up, world +x is on the left, world +z is up, i.e. at smaller rows
    world = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 1, 1]], dtype=np.float64)
    camera = world @ views["world_to_camera"][0].T
    np.testing.assert_allclose(camera[:, :3], [[0, 0, 4], [-1, 0, 4], [0, -1, 4]], atol=1e-6)
    pixels = camera[:, :3] @ views["intrinsics"][0].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    # tan(half the horizontal angle) = 0.5 over half of 6 pixels: focal length 6; the principal point is the centre
    np.testing.assert_allclose(pixels, [[3.0, 2.0], [1.5, 2.0], [3.0, 0.5]], atol=1e-6)


def test_intrinsics_follow_the_downscale(tmp_path: Path) -> None:
    frames = blender.read_frames(write_scene(tmp_path))
    full, half = blender.read_views(frames), blender.read_views(frames, downscale=2)
    assert half["image"].shape == (3, 2, 3, 3)
    np.testing.assert_allclose(half["intrinsics"][:, :2], full["intrinsics"][:, :2] / 2)


def test_transparent_pixels_do_not_bleed_over_the_silhouette(tmp_path: Path) -> None:
    """Area averaging is of colour times alpha: a hidden red must not tint the mean of its neighbours."""
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0] = (0, 0, 255, 255)
    pixels[0, 1] = (255, 0, 0, 0)  # invisible red
    pixels[1, 0] = (0, 255, 0, 51)  # a fifth visible
    views = blender.read_views(blender.read_frames(write_scene(tmp_path, pixels=pixels)), downscale=2)
    expected = np.array([2.8, 3.0, 3.8]) / 4  # blue + white + (4/5 white + green/5) + white
    np.testing.assert_array_equal(views["image"][0, 0, 0], np.round(255 * expected))


def test_the_composite_is_on_the_background_asked_for(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    frames = blender.read_frames(write_scene(tmp_path, pixels=pixels))
    assert (blender.read_views(frames)["image"] == 255).all()
    assert (blender.read_views(frames, background=(0.0, 0.0, 1.0))["image"] == [0, 0, 255]).all()


def test_pictures_without_alpha_are_opaque(tmp_path: Path) -> None:
    frames = blender.read_frames(write_scene(tmp_path))
    for path in frames.images:
        Image.new("RGB", (6, 4), (10, 20, 30)).save(path)
    assert (blender.read_views(frames)["image"] == [10, 20, 30]).all()


def test_names_with_dots_keep_them(tmp_path: Path) -> None:
    path = write_scene(tmp_path)
    frame = {"transform_matrix": LOOKING_ALONG_MINUS_Y}
    edit(path, frames=[{"file_path": "./train/r_0.5", **frame}, {"file_path": "train/r_0.png", **frame}])
    assert [image.name for image in blender.read_frames(path).images] == ["r_0.5.png", "r_0.png"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"transforms_train\.json does not exist"):
        blender.read_frames(tmp_path / "transforms_train.json")
    frames = blender.read_frames(write_scene(tmp_path))
    frames.images[1].unlink()
    with pytest.raises(DataError, match=r"r_1\.png does not exist"):
        blender.read_views(frames)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6, 0.95])
def test_a_truncated_picture_is_named(tmp_path: Path, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    frames = blender.read_frames(write_scene(tmp_path, pixels=noise))
    content = frames.images[2].read_bytes()
    frames.images[2].write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"r_2\.png cannot be decoded .* copy it again"):
        blender.read_views(frames)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "0 frames"),
        ({"frames": [{"file_path": "a"}]}, "transform_matrix"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1, 0], [0, 1]]}]}, "not a Blender transforms file"),
        ({"frames": [{"file_path": "a", "transform_matrix": (2 * np.eye(4)).tolist()}]}, "not a rigid motion"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[float("nan")] * 4] * 4}]}, "not a rigid motion"),
        ({"camera_angle_x": 40.0}, "between 0 and pi"),
        ({"camera_angle_x": None}, "camera_angle_x"),
    ],
)
def test_wrong_transforms_are_explained(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_scene(tmp_path)
    edit(path, **changes)
    with pytest.raises(DataError, match=message):
        blender.read_frames(path)


def test_broken_json_is_explained(tmp_path: Path) -> None:
    path = write_scene(tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match="cannot be read as JSON"):
        blender.read_frames(path)


def test_pictures_of_different_sizes_and_odd_factors_are_refused(tmp_path: Path) -> None:
    frames = blender.read_frames(write_scene(tmp_path))
    with pytest.raises(DataError, match="6x4, which cannot be downscaled by 3"):
        blender.read_views(frames, downscale=3)
    Image.new("RGBA", (8, 4)).save(frames.images[1])
    with pytest.raises(DataError, match="8x4 and the first picture of its scene 6x4"):
        blender.read_views(frames)


def test_the_dataset_finds_scenes_and_refuses_one_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    dataset = NerfSynthetic()
    assert "nerf_synthetic" in (dataset.missing() or "")
    write_scene(tmp_path / "nerf_synthetic" / "cup")
    write_scene(tmp_path / "nerf_synthetic" / "one", views=1)
    assert dataset.missing() is None
    assert dataset.instances() == ("cup", "one")
    schema = dataset.schema("cup")
    assert (schema.num_train, schema.num_test, schema.image_size) == (3, 3, (4, 6))
    assert schema.background == (1.0, 1.0, 1.0)
    for use in (lambda: dataset.schema("one"), lambda: dataset.load("one", "train")):
        with pytest.raises(DataError, match=r"'one' .* has 1 training view; .* at least two"):
            use()
    with pytest.raises(DataError, match="did you mean 'cup'"):
        dataset.schema("cop")


@pytest.mark.needs_data
def test_the_views_of_lego_agree_on_one_shape() -> None:
    """Carve a visual hull from the training silhouettes: projected into test views it must cover theirs, tightly."""
    if not (data_root() / "nerf_synthetic" / "lego").is_dir():
        pytest.skip("nerf_synthetic/lego is not below the data root")
    dataset = NerfSynthetic(downscale=2)
    schema = dataset.schema("lego")
    assert schema.image_size == (100, 100)
    train, test = dataset.load("lego", "train").all(), dataset.load("lego", "test").all()
    assert len(train["image"]) == schema.num_train == 100

    axis = np.linspace(-1.5, 1.5, 81)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    alive = np.ones(len(grid), dtype=bool)
    for view in range(0, 100, 2):
        silhouette = _dilate(train["image"][view].numpy().min(-1) < 250)
        column, row = _project(grid[alive], train, view)
        alive[alive] = silhouette[row, column]
    hull = grid[alive]
    radius = np.linalg.norm(hull, axis=1).max()
    assert 1.0 < radius < schema.scene_radius

    covered = inside = seen = drawn = 0
    for view in range(len(test["image"])):
        silhouette = test["image"][view].numpy().min(-1) < 250
        column, row = _project(hull, test, view)
        drawing = np.zeros_like(silhouette)
        drawing[row, column] = True
        drawing = _dilate(drawing)  # the grid is coarser than the pixels
        covered, seen = covered + (drawing & silhouette).sum(), seen + silhouette.sum()
        inside, drawn = inside + (drawing & _dilate(_dilate(silhouette))).sum(), drawn + drawing.sum()
    assert covered / seen > 0.99
    assert inside / drawn > 0.95


def _project(points: np.ndarray, views: dict, view: int) -> tuple[np.ndarray, np.ndarray]:
    matrix = views["world_to_camera"][view].numpy()
    camera = points @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = camera @ views["intrinsics"][view].numpy().T
    assert (pixels[:, 2] > 0).all()
    column, row = np.floor(pixels[:, :2] / pixels[:, 2:]).astype(int).T
    size = views["image"].shape[1]
    return column.clip(0, size - 1), row.clip(0, size - 1)


def _dilate(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return np.any([padded[r : r + len(mask), c : c + mask.shape[1]] for r in range(3) for c in range(3)], axis=0)
