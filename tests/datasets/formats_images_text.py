"""Whole files of the image and text formats, small, and how they are read: what the fuzzer damages, and tests start from."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adlbench.datasets.formats.cifar import read_cifar_batch, read_cifar_names
from adlbench.datasets.formats.coco import (
    object_mask,
    read_coco_objects,
    read_coco_panoptic,
    read_panoptic_masks,
)
from adlbench.datasets.formats.idx import idx_shape, read_idx
from adlbench.datasets.formats.images import image_size, read_image, read_indices
from adlbench.datasets.formats.lists import (
    read_captions,
    read_celeba_attributes,
    read_celeba_partition,
    read_names,
    read_segnet_list,
)
from adlbench.datasets.formats.omniglot import read_omniglot
from adlbench.datasets.formats.text import encode, read_text, words
from adlbench.datasets.formats.yolo import read_yolo_classes, read_yolo_labels
from adlbench.datasets.translation.paired_images import read_pair


@dataclass(frozen=True)
class Format:
    """``files`` are written into an empty folder, one of them is damaged, and ``read(folder)`` must return or raise DataError."""

    name: str
    files: dict[str, bytes]
    read: Callable[[Path], object]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> bytes:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    buffer = io.BytesIO()
    Image.fromarray(rng().integers(0, 256, shape, dtype=np.uint8)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def cifar_batch(count: int = 3, protocol: int = 2, **changes: Any) -> bytes:
    """As the authors' files: keys are bytes, and numpy's array is pickled."""
    data = rng().integers(0, 256, (count, 3072), dtype=np.uint8)
    content = {b"batch_label": b"batch", b"labels": [0, 9, 4][:count], b"data": data, b"filenames": [b"a.png"] * count}
    return pickle.dumps({**content, **{key.encode(): value for key, value in changes.items()}}, protocol)


def coco_objects(**changes: Any) -> dict[str, Any]:
    """Two images; a polygon, a run-length mask as a list, and one compressed."""
    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 10, "width": 12},
            {"id": 3, "file_name": "a.jpg", "height": 4, "width": 5},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 18,
                "bbox": [1, 2, 4.5, 3],
                "iscrowd": 0,
                "segmentation": [[1, 2, 5.5, 2, 5.5, 5]],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 12, 10],
                "iscrowd": 1,
                "segmentation": {"size": [10, 12], "counts": [20, 30, 70]},
            },
            {
                "id": 3,
                "image_id": 3,
                "category_id": 1,
                "bbox": [0, 0, 5, 4],
                "iscrowd": 0,
                "segmentation": {"size": [4, 5], "counts": "43="},
            },
        ],
    } | changes


def panoptic_annotation() -> dict[str, Any]:
    segments = [{"id": 300, "category_id": 1, "iscrowd": 0}, {"id": 70000, "category_id": 187, "iscrowd": 0}]
    return {
        "images": [{"id": 3, "file_name": "a.jpg", "height": 4, "width": 5}],
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
    }


def panoptic_png() -> bytes:
    identities = np.array([[0, 300, 300, 70000, 70000]] * 4)
    pixels = np.stack([identities % 256, identities // 256 % 256, identities // 65536], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def omniglot_zip(names: tuple[str, ...] = ("Greek/character01/0001_01", "Greek/character02/0002_01")) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(f"images/{name}.png", picture("png", "1", (105, 105)))
    return buffer.getvalue()


ATTRIBUTES = b"2\nSmiling Male\n000001.jpg -1  1\n000002.jpg  1 -1\n"
CAPTIONS = b'image,caption\na.jpg,A dog .\na.jpg,"A dog , and a cat ."\nb.jpg,Two cats .\n'
YAML = b"names:\n  0: person\n  1: dog\n"


def _read_coco(folder: Path) -> object:
    found = read_coco_objects(folder / "instances.json")
    return [object_mask(shape, image.height, image.width) for image in found.images for shape in image.shapes]


def _read_panoptic(folder: Path) -> object:
    found = read_coco_panoptic(folder / "panoptic.json")
    return [read_panoptic_masks(folder / image.segments_file, image, found.is_thing) for image in found.images]


def _read_words(folder: Path) -> object:
    text = read_text(folder / "wiki.txt")
    return encode(words(text), {"<unk>": 0, "the": 1}, "wiki.txt")


def _read_yolo(folder: Path) -> object:
    place = {number: index for index, number in enumerate(read_yolo_classes(folder / "config.yaml"))}
    return [read_yolo_labels(folder / name, place) for name in ("boxes.txt", "polygons.txt")]


def _read_lists(folder: Path) -> object:
    return (
        read_segnet_list(folder / "train.txt"),
        read_celeba_attributes(folder / "attributes.txt"),
        read_celeba_partition(folder / "partition.txt"),
        read_names(folder / "names.txt"),
    )


FORMATS = [
    Format(
        "idx",
        {
            "plain": idx(np.arange(60, dtype=np.uint8).reshape(5, 12)),
            "packed": gzip.compress(idx(np.zeros((3, 2), np.uint8))),
        },
        lambda folder: [(read_idx(folder / name), idx_shape(folder / name)) for name in ("plain", "packed")],
    ),
    Format("cifar 2", {"batch": cifar_batch()}, lambda folder: read_cifar_batch(folder / "batch")),
    Format("cifar 5", {"batch": cifar_batch(protocol=5)}, lambda folder: read_cifar_batch(folder / "batch")),
    Format(
        "cifar names",
        {"meta": pickle.dumps({b"label_names": [b"cat", b"dog"]}, 2)},
        lambda folder: read_cifar_names(folder / "meta"),
    ),
    *(
        Format(
            kind,
            {f"x.{kind}": picture(kind)},
            lambda folder, kind=kind: (
                read_image(folder / f"x.{kind}"),
                read_image(folder / f"x.{kind}", 8),
                image_size(folder / f"x.{kind}"),
            ),
        )  # type: ignore[misc]
        for kind in ("png", "jpeg", "ppm")
    ),
    Format("pgm", {"1.pgm": picture("ppm", "L")}, lambda folder: read_image(folder / "1.pgm", grey=True)),
    Format("label png", {"l.png": picture("png", "P")}, lambda folder: read_indices(folder / "l.png")),
    Format("pair", {"1.jpg": picture("jpeg", "RGB", (16, 8))}, lambda folder: read_pair(folder / "1.jpg")),
    Format("omniglot", {"set.zip": omniglot_zip()}, lambda folder: read_omniglot(folder / "set.zip")),
    Format("coco", {"instances.json": json.dumps(coco_objects()).encode()}, _read_coco),
    Format(
        "panoptic",
        {"panoptic.json": json.dumps(panoptic_annotation()).encode(), "a.png": panoptic_png()},
        _read_panoptic,
    ),
    Format(
        "yolo",
        {
            "config.yaml": YAML,
            "boxes.txt": b"0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.2 0.2\n",
            "polygons.txt": b"1 0 0 1 0 1 1\n",
        },
        _read_yolo,
    ),
    Format(
        "lists",
        {
            "train.txt": b"/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n",
            "attributes.txt": ATTRIBUTES,
            "partition.txt": b"000001.jpg 0\n000002.jpg 2\n",
            "names.txt": b"a.jpg\nb.jpg\n",
        },
        _read_lists,
    ),
    Format("captions", {"captions.txt": CAPTIONS}, lambda folder: read_captions(folder / "captions.txt")),
    Format("text", {"wiki.txt": "the cat – the dog\n\n = end = \n".encode()}, _read_words),
]
