"""Digits, MNIST and its like, and image folders."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adlbench.benchmark.api import DataError, Dataset
from adlbench.datasets.classification.digits import Digits
from adlbench.datasets.classification.image_folder import ImageFolder
from adlbench.datasets.classification.mnist import MNIST
from adlbench.datasets.formats.images import read_image


def check_against_schema(dataset: Dataset) -> None:
    schema = dataset.schema()
    for split, count in (("train", schema.num_train), ("test", schema.num_test)):
        items = dataset.load("all", split).all()
        assert set(items) == set(schema.fields)
        assert items["image"].dtype == torch.uint8
        assert items["image"].shape == (count, schema.channels, *schema.image_size)
        assert items["label"].dtype == torch.int64
        assert items["label"].shape == (count,)
        assert 0 <= int(items["label"].min()) <= int(items["label"].max()) < len(schema.classes)


# -------------------------------------------------------------------------------------------------------------- digits
def test_digits():
    check_against_schema(Digits())
    train, test = (Digits().load("all", split).all() for split in ("train", "test"))
    assert train["label"][:10].tolist() == list(range(10))  # the official order begins 0 1 2 ...
    assert (len(train["label"]), len(test["label"])) == (1437, 360)
    assert int(train["image"].max()) == 255
    assert len(torch.unique(torch.cat([train["image"], test["image"]]))) == 17  # 4-bit counts 0..16


def test_fingerprint_is_of_the_content():
    assert Digits().fingerprint() == Digits().fingerprint()


# --------------------------------------------------------------------------------------------------------------- MNIST
def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def write_mnist(folder: Path, count: int = 20, labels: int | None = None, top: int = 10) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        classes = rng.integers(0, top, labels if labels is not None else count, dtype=np.uint8)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(classes))  # plain files are found too


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    return tmp_path


def test_mnist_layout(data_root: Path):
    write_mnist(data_root / "mnist")
    assert MNIST().missing() is None
    check_against_schema(MNIST())


def test_mnist_absent(data_root: Path):
    message = MNIST(folder="fashion-mnist").missing()
    assert message is not None
    assert "train-images-idx3-ubyte.gz" in message
    assert str(data_root) in message
    with pytest.raises(DataError, match="fashion-mnist"):
        MNIST(folder="fashion-mnist").schema()


def test_mnist_damaged(data_root: Path):
    write_mnist(data_root / "short", labels=19)
    with pytest.raises(DataError, match=r"labels \(19,\) for 20 images"):
        MNIST(folder="short").load("all", "train")
    write_mnist(data_root / "classes", count=200, top=11)
    with pytest.raises(DataError, match="label 10, but there are 10 classes"):
        MNIST(folder="classes").load("all", "train")
    write_mnist(data_root / "truncated")
    path = data_root / "truncated" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        MNIST(folder="truncated").load("all", "test")


@pytest.mark.needs_data
def test_real_mnist():
    if not os.environ.get("ADLBENCH_DATA") or MNIST().missing():
        pytest.skip("MNIST is not below $ADLBENCH_DATA")
    check_against_schema(MNIST())
    train = MNIST().load("all", "train").all()
    assert len(train["label"]) == 60_000
    assert train["label"][:5].tolist() == [5, 0, 4, 1, 9]
    assert float(train["image"].float().mean() / 255) == pytest.approx(0.1307, abs=1e-4)  # as everybody normalises it


# -------------------------------------------------------------------------------------------------------- image folder
def write_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3, suffix: str = "png") -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (12, 12) if suffix == "pgm" else (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "jpg", "pgm", "ppm"])
@pytest.mark.parametrize("grey", [False, True])
def test_image_folder(data_root: Path, suffix: str, grey: bool):
    write_folder(data_root / "images", suffix=suffix)
    dataset = ImageFolder(grey=grey)
    assert dataset.missing() is None
    check_against_schema(dataset)
    assert dataset.schema().classes == ("cat", "dog")
    assert dataset.schema().channels == (1 if grey else 3)
    assert dataset.load("all", "train").all()["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_image_folder_ignores_what_is_not_an_image(data_root: Path):
    write_folder(data_root / "images")
    (data_root / "images" / "train" / "cat" / "notes.txt").write_text("x")
    (data_root / "images" / "train" / "cat" / ".hidden.png").write_text("x")
    (data_root / "images" / "train" / ".git").mkdir()
    assert ImageFolder().schema().num_train == 6


@pytest.mark.parametrize("suffix", ["png", "jpg", "pgm"])
def test_truncated_image_is_an_error_that_names_it(data_root: Path, suffix: str):
    write_folder(data_root / "images", suffix=suffix)
    path = data_root / "images" / "train" / "dog" / f"1.{suffix}"
    content = path.read_bytes()
    for kept in (0, 5, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:kept])
        with pytest.raises(DataError, match=f"dog/1.{suffix} cannot be read"):
            ImageFolder().load("all", "train")


def test_images_of_different_sizes(data_root: Path):
    write_folder(data_root / "images")
    Image.new("RGB", (20, 10), "red").save(data_root / "images" / "train" / "dog" / "9.png")
    with pytest.raises(DataError, match=r"dog/9.png is 20x10 pixels .* 12x12; set the parameter 'size'"):
        ImageFolder().load("all", "train")
    resized = ImageFolder(size=8).load("all", "train").all()["image"]
    assert resized.shape == (7, 3, 8, 8)
    assert (resized[-1, 0] == 255).all()


def test_resizing_keeps_the_middle_square(tmp_path: Path):
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", size=10) == 200).all()


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path):
    Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", grey=True)[0, 0].tolist() == [0, 1, 128, 255]


def test_empty_folders(data_root: Path):
    assert "put images into" in str(ImageFolder().missing())
    (data_root / "images" / "train").mkdir(parents=True)
    (data_root / "images" / "test").mkdir()
    with pytest.raises(DataError, match="has no folders"):
        ImageFolder().schema()
    (data_root / "images" / "train" / "cat").mkdir()
    with pytest.raises(DataError, match="train/cat has no images"):
        ImageFolder().schema()


def test_no_test_images(data_root: Path):
    write_folder(data_root / "images")
    for path in (data_root / "images" / "test").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="test has no images"):
        ImageFolder().schema()


def test_a_class_without_training_images(data_root: Path):
    write_folder(data_root / "images")
    (data_root / "images" / "test" / "cow").mkdir()
    with pytest.raises(DataError, match="without training images: cow; known are cat, dog"):
        ImageFolder().schema()


def test_one_class_only_is_loaded_and_said(data_root: Path):
    write_folder(data_root / "images", classes=("cat",))
    with pytest.warns(UserWarning, match="one class only"):
        items = ImageFolder().load("all", "train").all()
    assert items["label"].tolist() == [0, 0, 0]
