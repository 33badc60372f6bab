"""COCO's annotation files: objects (boxes, polygons, run-length masks) and panoptic segments.

T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; A. Kirillov et al., Panoptic Segmentation, CVPR 2019.
Categories become 0, 1, ... in the order of their ids. Boxes leave this reader as left, top, right, bottom in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.images import read_colours
from adlbench.datasets.formats.text import read_json

MAX_SIDE = 1 << 14  # pixels; of the sizes that an annotation file may claim
UNLABELLED = 255  # in a mask of classes


@dataclass(frozen=True)
class CocoImage:
    """What is known of one image. Polygons are [K, 2] x, y in pixels; a run-length mask is its counts, column by column."""

    file_name: str
    height: int
    width: int
    boxes: np.ndarray  # float32 [M, 4], clipped to the image
    label: np.ndarray  # int64 [M], index into the categories
    crowd: np.ndarray  # bool [M]
    shapes: tuple[
        tuple[np.ndarray, ...] | np.ndarray, ...
    ]  # M times polygons, or int64 [R] counts of a run-length mask


@dataclass(frozen=True)
class CocoObjects:
    categories: tuple[str, ...]
    images: tuple[CocoImage, ...]  # by image id


@dataclass(frozen=True)
class PanopticImage:
    file_name: str  # of the image
    segments_file: str  # of the PNG with a segment's id in every pixel
    height: int
    width: int
    segments: tuple[tuple[int, int], ...]  # id, index into the categories


@dataclass(frozen=True)
class CocoPanoptic:
    categories: tuple[str, ...]
    is_thing: tuple[bool, ...]  # countable objects, not stuff such as sky
    images: tuple[PanopticImage, ...]  # by image id


def read_coco_objects(path: Path) -> CocoObjects:
    """``instances_*.json``: every image, with the objects in it in the file's order. Raises DataError naming the entry."""
    file = _File(path)
    categories, _, index = file.categories()
    images = file.images()
    found: dict[int, list[tuple[list[float], int, bool, Any]]] = {key: [] for key in images}
    for number, entry in enumerate(file.entries("annotations")):
        where = f"annotations[{number}]"
        image = images.get(file.integer(entry, "image_id", where))
        if image is None:
            file.fail(where, f"image_id {entry['image_id']} names no image")
        label = index.get(file.integer(entry, "category_id", where))
        if label is None:
            file.fail(where, f"category_id {entry['category_id']} names no category")
        name, height, width = image
        left, top, across, down = file.numbers(entry, "bbox", where, 4)
        right, bottom = min(left + across, width), min(top + down, height)
        left, top = max(left, 0.0), max(top, 0.0)
        if across < 0 or down < 0 or right < left or bottom < top:
            file.fail(where, f"bbox {entry['bbox']} is not inside {name} of {width}x{height} pixels")
        shape = _shape(file, entry.get("segmentation") or (), where, height, width)
        crowd = bool(file.integer(entry, "iscrowd", where, default=0))
        found[entry["image_id"]].append(([left, top, right, bottom], label, crowd, shape))
    return CocoObjects(categories, tuple(_image(*images[key], found[key]) for key in sorted(images)))


def _image(name: str, height: int, width: int, objects: list[tuple[list[float], int, bool, Any]]) -> CocoImage:
    return CocoImage(
        file_name=name,
        height=height,
        width=width,
        boxes=np.array([box for box, *_ in objects], dtype=np.float32).reshape(-1, 4),
        label=np.array([label for _, label, *_ in objects], dtype=np.int64),
        crowd=np.array([crowd for *_, crowd, _ in objects], dtype=bool),
        shapes=tuple(shape for *_, shape in objects),
    )


def _shape(file: _File, value: Any, where: str, height: int, width: int) -> tuple[np.ndarray, ...] | np.ndarray:
    if isinstance(value, (list, tuple)):
        polygons = []
        for polygon in value:
            points = file.numbers({"polygon": polygon}, "polygon", where)
            if len(points) < 6 or len(points) % 2:
                file.fail(where, f"a polygon has {len(points)} numbers, not x and y of three corners or more")
            if min(points) < -width - height or max(points) > 2 * (width + height):
                file.fail(where, "a polygon leaves its image")
            corners = np.array(points, dtype=np.float64).reshape(-1, 2)
            polygons.append(corners.clip(0, [width, height]))  # annotators overshoot by a pixel
        return tuple(polygons)
    if not isinstance(value, dict) or value.get("size") != [height, width]:
        file.fail(where, f"a segmentation is neither polygons nor a run-length mask of size [{height}, {width}]")
    counts = value.get("counts")
    if isinstance(counts, str):
        try:
            counts = _decompress(counts)
        except ValueError as error:
            file.fail(where, str(error))
    runs = np.array(file.numbers({"counts": counts}, "counts", where), dtype=np.float64)
    if (runs < 0).any() or runs.sum() != height * width or (runs % 1).any():
        file.fail(where, f"the runs of a mask do not add up to {height} x {width} pixels")
    return runs.astype(np.int64)


def _decompress(text: str) -> list[int]:
    """COCO's compressed counts: six bits a character, five of them number, and differences to the count before last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"the character {character!r} does not occur there in compressed counts")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("compressed counts end within a number")
    return counts


def object_mask(shape: tuple[np.ndarray, ...] | np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [H, W] of one object: COCO's own rasterisation of polygons (pycocotools), or the runs of its mask."""
    if isinstance(shape, tuple):
        if not shape:
            return np.zeros((height, width), dtype=bool)
        try:
            from pycocotools import mask
        except ImportError:
            raise DataError("masks from polygons need pycocotools: pip install 'adlbench[coco]'") from None
        merged = mask.merge(mask.frPyObjects([polygon.ravel().tolist() for polygon in shape], height, width))
        shape = np.array(_decompress(merged["counts"].decode()), dtype=np.int64)
    values = np.arange(len(shape)) % 2 == 1  # the first run is outside
    return np.repeat(values, shape).reshape(width, height).T


def read_coco_panoptic(path: Path) -> CocoPanoptic:
    """``panoptic_*.json``: the segments of every image. Raises DataError naming the entry."""
    file = _File(path)
    categories, is_thing, index = file.categories()
    images = file.images()
    found: dict[int, PanopticImage] = {}
    for number, entry in enumerate(file.entries("annotations")):
        where = f"annotations[{number}]"
        key = file.integer(entry, "image_id", where)
        if key not in images or key in found:
            file.fail(where, f"image_id {key} names no image, or one that has its segments already")
        segments: dict[int, int] = {}
        for segment in file.entries("segments_info", entry, where):
            label = index.get(file.integer(segment, "category_id", where))
            identity = file.integer(segment, "id", where)
            if label is None or not 0 < identity < 1 << 24 or identity in segments:
                file.fail(
                    where, f"a segment has category {segment['category_id']} and id {identity}; one of them is wrong"
                )
            segments[identity] = label
        name, height, width = images[key]
        found[key] = PanopticImage(name, file.name(entry, where), height, width, tuple(segments.items()))
    absent = sorted(set(images) - set(found))
    if absent:
        file.fail(f"image {absent[0]}", "no annotation names its segments")
    return CocoPanoptic(categories, is_thing, tuple(found[key] for key in sorted(found)))


def read_panoptic_masks(path: Path, image: PanopticImage, is_thing: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Class of each pixel, uint8 [H, W] (255: none), and object, int32 [H, W], counted from 1 among the things (0: none).

    ``path`` is the PNG whose pixels are ids, red + 256 green + 65536 blue.
    """
    pixels = read_colours(path).astype(np.int32)
    if pixels.shape[:2] != (image.height, image.width):
        raise DataError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, its image {image.width}x{image.height} pixels")
    identities, inverse = np.unique(pixels @ np.array([1, 256, 65536], dtype=np.int32), return_inverse=True)
    labels = dict(image.segments)
    unknown = [int(identity) for identity in identities if identity and int(identity) not in labels]
    if unknown:
        raise DataError(
            f"{path} has pixels of segment {unknown[0]}, which its annotation does not list; fetch both again"
        )
    things = [identity for identity, label in image.segments if is_thing[label]]
    number = {identity: place for place, identity in enumerate(things, start=1)}
    classes = np.array([labels.get(int(identity), UNLABELLED) for identity in identities], dtype=np.uint8)
    objects = np.array([number.get(int(identity), 0) for identity in identities], dtype=np.int32)
    inverse = inverse.reshape(pixels.shape[:2])
    return classes[inverse], objects[inverse]


class _File:
    """Typed access to an annotation file, with errors that name the file and the entry."""

    def __init__(self, path: Path):
        self.path, self.content = path, read_json(path)
        if not isinstance(self.content, dict):
            self.fail("top level", "not an object with images, annotations and categories")

    def fail(self, where: str, problem: str) -> NoReturn:
        raise DataError(f"{self.path}, {where}: {problem[:300]}; fetch the file again")

    def entries(self, key: str, entry: Any = None, where: str = "top level") -> list[dict[str, Any]]:
        value = (self.content if entry is None else entry).get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(where, f"no list of objects named {key!r}")
        return value

    def integer(self, entry: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
        value = entry.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
            self.fail(where, f"{key} is {str(value)[:40]!r}, not a whole number")
        return value

    def numbers(self, entry: Mapping[str, Any], key: str, where: str, count: int | None = None) -> list[float]:
        value = entry.get(key)
        if not isinstance(value, list) or not value or (count is not None and len(value) != count):
            self.fail(where, f"{key} is not a list of {count or ''} numbers")
        if any(type(number) not in (int, float) or not math.isfinite(number) or abs(number) > 1e9 for number in value):
            self.fail(where, f"{key} holds something that is not a finite number")
        return value

    def name(self, entry: Mapping[str, Any], where: str) -> str:
        value = entry.get("file_name")
        path = PurePosixPath(value) if isinstance(value, str) else PurePosixPath("/")
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in str(value) or "\\" in str(value):
            self.fail(where, f"file_name is {str(value)[:80]!r}, not a path below the folder of images")
        return str(value)

    def categories(self) -> tuple[tuple[str, ...], tuple[bool, ...], dict[int, int]]:
        """Names, whether they are things, and the place of each id, in the order of ids."""
        entries = {}
        for number, entry in enumerate(self.entries("categories")):
            key = self.integer(entry, "id", f"categories[{number}]")
            if key in entries or not isinstance(entry.get("name"), str):
                self.fail(f"categories[{number}]", f"id {key} is there twice, or has no name")
            entries[key] = entry
        if not 0 < len(entries) < UNLABELLED:
            self.fail("categories", f"there are {len(entries)}, not 1 to {UNLABELLED - 1}")
        order = sorted(entries)
        names = tuple(entries[key]["name"] for key in order)
        things = tuple(bool(entries[key].get("isthing", 1)) for key in order)
        return names, things, {key: place for place, key in enumerate(order)}

    def images(self) -> dict[int, tuple[str, int, int]]:
        """Image id -> file name, height, width."""
        images = {}
        for number, entry in enumerate(self.entries("images")):
            where = f"images[{number}]"
            key = self.integer(entry, "id", where)
            height, width = self.integer(entry, "height", where), self.integer(entry, "width", where)
            if key in images or not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
                self.fail(where, f"id {key} is there twice, or its size {width}x{height} is not one of an image")
            images[key] = (self.name(entry, where), height, width)
        if not images:
            self.fail("images", "there are none")
        return images
