"""Whole data sets of generated rooms as arrays, cached."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from adlbench.datasets.generated import rooms
from adlbench.datasets.generated.cache import Arrays, cached
from adlbench.datasets.generated.furniture import VERSION as FURNITURE_VERSION
from adlbench.datasets.generated.rasterizing import draw, pinhole

VERSION = 1000 * FURNITURE_VERSION + rooms.VERSION
FIELD_OF_VIEW = np.radians(75.0)


@dataclass(frozen=True)
class Views:
    """How many pictures of each room, and how large."""

    count: int
    height: int
    width: int


def cloud_set(split: str, count: int, num_points: int, seed: int) -> Arrays:
    """Points on the first ``count`` rooms of a split: the fields of ``Room.surface``, stacked."""
    parameters = {"split": split, "count": count, "num_points": num_points, "seed": seed}

    def make() -> Arrays:
        items = []
        for number in range(count):
            rng = np.random.default_rng([seed, split == "test", number, 8])  # of the samples; the room has its own
            items.append(rooms.make_room(split, number, seed).surface(num_points, rng))
        return {field: np.stack([item[field] for item in items]) for field in items[0]}

    return cached("rooms-points", VERSION, parameters, make)


def view_set(split: str, count: int, views: Views, seed: int) -> Arrays:
    """RGB-D pictures of the first ``count`` rooms of a split.

    Returns ``image`` uint8 [N, V, H, W, 3], ``depth`` float32 [N, V, H, W], ``mask`` uint8 and
    ``instance`` int32 [N, V, H, W] (255 and 0 where there is nothing; instances count from 1),
    ``intrinsics`` float32 [N, V, 3, 3], ``world_to_camera`` float32 [N, V, 4, 4].
    """
    parameters = {"split": split, "count": count, "seed": seed, "views": asdict(views)}

    def make() -> Arrays:
        size = (views.height, views.width)
        intrinsics = pinhole(size, FIELD_OF_VIEW)
        drawn = []
        for number in range(count):
            room = rooms.make_room(split, number, seed)
            rng = np.random.default_rng([seed, split == "test", number, 9])
            cameras = room.cameras(views.count, rng)
            drawn.append((cameras, [draw(room.model, camera, intrinsics, size, room.light) for camera in cameras]))
        pictures = [picture for _, row in drawn for picture in row]
        shape = (count, views.count)
        label = np.stack([p.label for p in pictures])
        return {
            "image": np.stack([p.image for p in pictures]).reshape(*shape, *size, 3),
            "depth": np.stack([p.depth for p in pictures]).reshape(*shape, *size),
            "mask": np.where(label < 0, 255, label).astype(np.uint8).reshape(*shape, *size),
            "instance": np.stack([p.instance + 1 for p in pictures]).astype(np.int32).reshape(*shape, *size),
            "intrinsics": np.tile(intrinsics.astype(np.float32), (*shape, 1, 1)),
            "world_to_camera": np.stack([cameras for cameras, _ in drawn]).astype(np.float32),
        }

    return cached("rooms-views", VERSION, parameters, make)


def layout_set(split: str, count: int, most: int, seed: int) -> Arrays:
    """What stands where: ``furniture`` float32 [N, most, 7], ``furniture_label`` int64 [N, most], ``room_size`` float32 [N, 2]
    (along x and z), ``label`` int64 [N], the kind of room."""
    parameters = {"split": split, "count": count, "most": most, "seed": seed}

    def make() -> Arrays:
        made = [rooms.make_room(split, number, seed) for number in range(count)]
        boxes = [room.boxes(most) for room in made]
        return {
            "furniture": np.stack([box for box, _ in boxes]),
            "furniture_label": np.stack([label for _, label in boxes]).astype(np.int64),
            "room_size": np.array([(room.width, room.depth) for room in made], dtype=np.float32),
            "label": np.array([list(rooms.KINDS).index(room.kind) for room in made], dtype=np.int64),
        }

    return cached("rooms-layouts", VERSION, parameters, make)
