"""The photographs as fields: where pixels lie, how they are averaged, what is held out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.transform import resize_local_mean

from adlbench.benchmark.api import DataError, Modality
from adlbench.datasets.reconstruction import photographs
from adlbench.datasets.reconstruction.photographs import PHOTOGRAPHS, Photographs, pixel_centres, read_photograph


def test_pixel_centres_are_half_a_pixel_inside_the_edges() -> None:
    centres = pixel_centres(2, 4)
    np.testing.assert_allclose(centres[0, :, 0], [-0.75, -0.25, 0.25, 0.75])  # x grows to the right
    np.testing.assert_allclose(centres[:, 0, 1], [-0.5, 0.5])  # y grows downwards
    np.testing.assert_allclose(pixel_centres(256, 256).mean(axis=(0, 1)), 0, atol=1e-6)


def test_a_whole_factor_is_the_mean_of_blocks() -> None:
    """512x512 to 256x256: exactly the mean of 2x2 pixels of the file."""
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    pixels = np.asarray(Image.open(Path(spec.origin).parent / "data/camera.png"), dtype=np.float64)
    expected = pixels.reshape(256, 2, 256, 2).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(read_photograph("camera", 256)[..., 0], expected, atol=1e-6)


def test_a_broken_factor_keeps_the_mean_and_agrees_with_skimage() -> None:
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    picture = Image.open(Path(spec.origin).parent / "datasets/images/china.jpg").convert("RGB")  # 640 x 427
    left = (640 - 427) // 2
    square = picture.crop((left, 0, left + 427, 427))
    ours = read_photograph("china", 256)
    np.testing.assert_allclose(ours.mean(axis=(0, 1)), np.asarray(square).mean(axis=(0, 1)) / 255, atol=1e-6)
    peer = resize_local_mean(np.asarray(square) / 255, (256, 256), channel_axis=-1)
    np.testing.assert_allclose(ours, peer, atol=1e-6)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_is_in_its_wheel_and_matches_its_schema(name: str) -> None:
    dataset = Photographs(photographs=(name,), size=64)
    assert dataset.missing() is None
    schema, items = dataset.schema(name), dataset.load(name, "train").all()
    assert schema.modality is Modality.FIELD
    assert items["value"].shape == (64 * 64, schema.channels)
    assert items["value"].min() >= 0
    assert items["value"].max() <= 1
    assert items["value"].std() > 0.05
    assert items["coords"].shape == (schema.num_train, 2)


def test_values_stand_at_their_coordinates() -> None:
    items = Photographs(size=64).load("camera", "train").all()
    image = read_photograph("camera", 64)
    column = ((items["coords"][:, 0] + 1) / 2 * 64).floor().long().numpy()
    row = ((items["coords"][:, 1] + 1) / 2 * 64).floor().long().numpy()
    np.testing.assert_array_equal(items["value"].numpy(), image[row, column])
    assert row[1] == 0  # row by row
    assert column[1] == 1


def test_held_out_pixels_are_really_held_out() -> None:
    dataset = Photographs(size=64, held_out=True)
    schema = dataset.schema("camera")
    train, test = dataset.load("camera", "train").all()["coords"], dataset.load("camera", "test").all()["coords"]
    assert (len(train), len(test)) == (schema.num_train, schema.num_test) == (32 * 32, 3 * 32 * 32)
    seen = {tuple(point) for point in train.tolist()}
    asked = {tuple(point) for point in test.tolist()}
    assert not seen & asked
    assert seen | asked == {tuple(point) for point in pixel_centres(64, 64).reshape(-1, 2).tolist()}
    # every second pixel in each axis, starting with the first
    assert sorted({x for x, _ in seen}) == pytest.approx([(4 * i + 1) / 64 - 1 for i in range(32)])
    assert sorted({y for _, y in seen}) == pytest.approx([(4 * i + 1) / 64 - 1 for i in range(32)])


def test_fitting_trains_on_and_scores_every_pixel() -> None:
    dataset = Photographs(size=32)
    train, test = dataset.load("camera", "train").all(), dataset.load("camera", "test").all()
    assert len(train["coords"]) == 32 * 32
    assert (train["coords"] == test["coords"]).all()


def test_wrong_parameters_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no photograph 'camrea'; known: camera"):
        Photographs().schema("camrea")
    with pytest.raises(DataError, match="has only 512 pixels"):
        Photographs(size=600).load("camera", "train")
    with pytest.raises(DataError, match="even number"):
        Photographs(size=255, held_out=True).schema("camera")
    monkeypatch.setitem(PHOTOGRAPHS, "camera", ("no_such_package", "camera.png", 1))
    assert "no_such_package" in (Photographs().missing() or "")
    with pytest.raises(DataError, match="not installed"):
        Photographs(size=16).load("camera", "train")


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "camera.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    monkeypatch.setattr(photographs, "_path", lambda name: broken)
    with pytest.raises(DataError, match=r"camera\.png cannot be decoded .* reinstall the package 'skimage'"):
        read_photograph("camera", 16)
