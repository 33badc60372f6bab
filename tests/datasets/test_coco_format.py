"""COCO's annotation files against pycocotools, and what a damaged one must not do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_images_text import coco_objects, panoptic_annotation, panoptic_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.coco import (
    object_mask,
    read_coco_objects,
    read_coco_panoptic,
    read_panoptic_masks,
)

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, content: Any) -> Path:
    path = folder / "instances.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_objects(tmp_path: Path) -> None:
    found = read_coco_objects(write(tmp_path, coco_objects()))
    assert found.categories == ("person", "dog")  # by id: 1, 18
    assert [image.file_name for image in found.images] == ["a.jpg", "b.jpg"]  # by id: 3, 7
    second = found.images[1]
    assert second.boxes.tolist() == [[1, 2, 5.5, 5], [0, 0, 12, 10]]
    assert (second.label.tolist(), second.crowd.tolist()) == ([1, 0], [False, True])


def test_boxes_are_clipped_to_their_image(tmp_path: Path) -> None:
    content = coco_objects()
    content["annotations"][0]["bbox"] = [-0.4, 2, 20, 3]
    assert read_coco_objects(write(tmp_path, content)).images[1].boxes[0].tolist() == [0, 2, 12, 5]


def test_an_image_without_objects_stays(tmp_path: Path) -> None:
    image = read_coco_objects(write(tmp_path, coco_objects(annotations=[]))).images[0]
    assert (image.boxes.shape, image.label.shape, image.shapes) == ((0, 4), (0,), ())


@QUICK
@given(height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 999), compressed=st.booleans())
def test_run_length_masks_equal_pycocotools(
    tmp_path: Path, height: int, width: int, seed: int, compressed: bool
) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    truth = rng.random((height, width)) < rng.random()
    encoded = mask.encode(np.asfortranarray(truth.astype(np.uint8)))
    counts: Any = encoded["counts"].decode()
    if not compressed:
        flat = truth.T.ravel()
        changes = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *changes, flat.size]).tolist()
        counts = [0, *counts] if flat[0] else counts
    entry = {"image_id": 1, "category_id": 1, "bbox": [0, 0, width, height], "iscrowd": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{**entry, "segmentation": {"size": [height, width], "counts": counts}}],
    }
    image = read_coco_objects(write(tmp_path, content)).images[0]
    assert (object_mask(image.shapes[0], height, width) == truth).all()


def test_polygons_equal_pycocotools(tmp_path: Path) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    image = read_coco_objects(write(tmp_path, coco_objects())).images[1]
    truth = mask.decode(mask.merge(mask.frPyObjects([[1, 2, 5.5, 2, 5.5, 5]], 10, 12)))
    assert (object_mask(image.shapes[0], 10, 12) == truth).all()
    assert 0 < truth.sum() < 20


def changed(**changes: Any) -> dict[str, Any]:
    content = coco_objects()
    content["annotations"][0] |= changes
    return content


def rle(counts: Any, size: Any = (10, 12)) -> dict[str, Any]:
    return changed(segmentation={"size": list(size), "counts": counts})


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}
DAMAGED: dict[str, Any] = {
    "empty": b"",
    "cut off": json.dumps(coco_objects()).encode()[:-40],
    "not UTF-8": json.dumps(coco_objects()).encode("utf-16"),
    "a list": [],
    "null": None,
    "NaN in a box": json.dumps(changed(bbox=[0, 0, float("nan"), 1])).encode(),
    "infinity in a box": json.dumps(changed()).replace("4.5", "1e999").encode(),
    "nested 100,000 deep": b'{"images":' + b"[" * 100_000,
    "a number of 100,000 digits": b'{"images": ' + b"9" * 100_000 + b"}",
    "no images": coco_objects(images=[]),
    "images that are numbers": coco_objects(images=[1, 2]),
    "no categories": coco_objects(categories=[]),
    "a category twice": coco_objects(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
    "255 categories": coco_objects(categories=[{"id": i, "name": str(i)} for i in range(255)]),
    "an image twice": coco_objects(images=[IMAGE, IMAGE]),
    "a negative size": coco_objects(images=[{**IMAGE, "height": -4}]),
    "an absurd size": coco_objects(images=[{**IMAGE, "width": 10**9}]),
    "a name that leads out": coco_objects(images=[{**IMAGE, "file_name": "../../etc/passwd"}]),
    "a name from the root": coco_objects(images=[{**IMAGE, "file_name": "/etc/passwd"}]),
    "an image that is not there": changed(image_id=99),
    "an image id that is a list": changed(image_id=[7]),
    "a category that is not there": changed(category_id=2),
    "three numbers for a box": changed(bbox=[1, 2, 3]),
    "a negative box": changed(bbox=[5, 5, -2, 3]),
    "a box outside": changed(bbox=[50, 5, 2, 3]),
    "a box of strings": changed(bbox=["1", "2", "3", "4"]),
    "a polygon of two corners": changed(segmentation=[[1, 2, 3, 4]]),
    "a polygon of seven numbers": changed(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
    "a polygon far away": changed(segmentation=[[1e8, 2, 3, 4, 5, 6]]),
    "a polygon that is a number": changed(segmentation=[7]),
    "a mask of another size": rle([120], (12, 10)),
    "a mask too short": rle([100]),
    "a mask too long": rle([10**8]),
    "a negative run": rle([130, -10]),
    "half a pixel": rle([119.5, 0.5]),
    "a mask in other letters": rle("\x00\x01"),
    "a mask that ends within a number": rle("oooo"),
    "a mask that never ends": rle("o" * 100_000),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_annotations_are_errors_that_name_file_and_place(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, DAMAGED[case])
    with pytest.raises(DataError) as error:
        read_coco_objects(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_the_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances.json, annotations\[0\]: category_id 2 names no category"):
        read_coco_objects(write(tmp_path, changed(category_id=2)))


# ------------------------------------------------------------------------------------------------------------- panoptic
def write_panoptic(folder: Path, content: Any, png: bytes) -> Path:
    (folder / "a.png").write_bytes(png)
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


def test_panoptic(tmp_path: Path) -> None:
    found = read_coco_panoptic(write_panoptic(tmp_path, panoptic_annotation(), panoptic_png()))
    mask, instance = read_panoptic_masks(tmp_path / "a.png", found.images[0], found.is_thing)
    assert mask[0].tolist() == [255, 0, 0, 1, 1]
    assert instance[0].tolist() == [0, 1, 1, 0, 0]  # sky is no thing
    assert (mask.dtype, instance.dtype) == (np.uint8, np.int32)


def panoptic(**changes: Any) -> dict[str, Any]:
    content = panoptic_annotation()
    content["annotations"][0] |= changes
    return content


def segment(**changes: Any) -> dict[str, Any]:
    return panoptic(segments_info=[{"id": 300, "category_id": 1} | changes, {"id": 70000, "category_id": 187}])


def small_png(shape: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(buffer, "png")
    return buffer.getvalue()


PANOPTIC: dict[str, tuple[Any, bytes]] = {
    "a segment that is not listed": (panoptic(segments_info=[{"id": 300, "category_id": 1}]), panoptic_png()),
    "a category that is not there": (segment(category_id=5), panoptic_png()),
    "an id past three bytes": (segment(id=1 << 24), panoptic_png()),
    "a negative id": (segment(id=-1), panoptic_png()),
    "an id twice": (segment(id=70000), panoptic_png()),
    "an id that is no number": (segment(id="x"), panoptic_png()),
    "an image without segments": (panoptic_annotation() | {"annotations": []}, panoptic_png()),
    "an image twice": (
        panoptic_annotation() | {"annotations": panoptic_annotation()["annotations"] * 2},
        panoptic_png(),
    ),
    "a name that leads out": (panoptic(file_name="../a.png"), panoptic_png()),
    "another size": (panoptic(), small_png((5, 4))),
    "a png cut off": (panoptic(), panoptic_png()[:-30]),
    "an empty png": (panoptic(), b""),
    "segments that are no list": (panoptic(segments_info=7), panoptic_png()),
}


@pytest.mark.parametrize("case", PANOPTIC)
def test_damaged_segments_are_errors_that_name_the_file(tmp_path: Path, case: str) -> None:
    path = write_panoptic(tmp_path, *PANOPTIC[case])

    def read() -> None:
        found = read_coco_panoptic(path)
        read_panoptic_masks(tmp_path / found.images[0].segments_file, found.images[0], found.is_thing)

    with pytest.raises(DataError) as error:
        read()
    assert str(tmp_path) in str(error.value)
