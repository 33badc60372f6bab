"""COLMAP's sparse reconstructions (Schönberger and Frahm 2016): ``cameras``, ``images`` and ``points3D`` as .bin or .txt.

Poses are world to camera in OpenCV axes, as everywhere here; positions are in the reconstruction's own units.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.camera_models import MODELS, Camera, make_camera
from adlbench.datasets.formats.files import AGAIN, ByteReader, check_finite, read_bytes, read_text

NONE = -1  # of an observation that belongs to no point


@dataclass(frozen=True)
class Image:
    name: str
    camera: int  # key into ``cameras``
    world_to_camera: np.ndarray  # float64 [4, 4]
    pixels: np.ndarray  # float64 [K, 2], observed features: column, row
    points: np.ndarray  # int64 [K], rows of ``Reconstruction.points``, -1 for none


@dataclass(frozen=True)
class Reconstruction:
    cameras: dict[int, Camera]
    images: tuple[Image, ...]  # by name
    points: np.ndarray  # float64 [P, 3]
    colours: np.ndarray  # uint8 [P, 3]
    errors: np.ndarray  # float64 [P], mean reprojection error in pixels


def read_reconstruction(folder: Path) -> Reconstruction:
    """``folder`` holds the three files, binary or text; binary is taken where both are. Raises DataError with the place."""
    binary = (folder / "cameras.bin").is_file()
    if not binary and not (folder / "cameras.txt").is_file():
        raise DataError(f"{folder} has neither cameras.bin nor cameras.txt; put COLMAP's sparse model there")
    paths = [folder / f"{name}.{'bin' if binary else 'txt'}" for name in ("cameras", "images", "points3D")]
    cameras = (_binary_cameras if binary else _text_cameras)(paths[0])
    keys, points, colours, errors = (_binary_points if binary else _text_points)(paths[2])
    images = (_binary_images if binary else _text_images)(paths[1])
    check_finite(points, "point", paths[2])
    order = np.argsort(keys, kind="stable")
    found = []
    for image in sorted(images, key=lambda image: image.name):
        if image.camera not in cameras:
            raise DataError(
                f"{paths[1]}: image {image.name!r} is of camera {image.camera}, which {paths[0].name} lacks; {AGAIN}"
            )
        check_finite(image.pixels, f"observation of {image.name!r}", paths[1])
        rows = _rows(image.points, keys, order)
        if (rows == len(keys)).any():
            absent = image.points[(rows == len(keys)).argmax()]
            raise DataError(f"{paths[1]}: {image.name!r} observes point {absent}, which {paths[2].name} lacks; {AGAIN}")
        found.append(Image(image.name, image.camera, image.world_to_camera, image.pixels, rows))
    names = [image.name for image in found]
    if not names or len(set(names)) != len(names):
        raise DataError(
            f"{paths[1]} has {len(names)} images of {len(set(names))} names; it must have one or more, all different"
        )
    return Reconstruction(cameras, tuple(found), points, colours, errors)


def _rows(wanted: np.ndarray, keys: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows of ``wanted`` among ``keys``: -1 stays, ``len(keys)`` for what is not there."""
    if len(keys) == 0:
        return np.where(wanted == NONE, NONE, 0)
    place = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    rows = order[place]
    return np.where(wanted == NONE, NONE, np.where(keys[rows] == wanted, rows, len(keys)))


def _pose(quaternion: np.ndarray, translation: np.ndarray, where: str) -> np.ndarray:
    """[4, 4] from (w, x, y, z) and the translation."""
    sound = np.isfinite([*quaternion, *translation]).all() and (np.abs(quaternion) < 2).all()
    norm = np.linalg.norm(quaternion) if sound else 0.0
    if not 0.5 < norm < 2:
        raise DataError(
            f"{where}: rotation {quaternion.tolist()}, translation {translation.tolist()} are no pose; {AGAIN}"
        )
    w, x, y, z = quaternion / norm
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose


# --------------------------------------------------------------------------------------------------------------- binary
def _binary_cameras(path: Path) -> dict[int, Camera]:
    reader = ByteReader(read_bytes(path), path)
    names = {model.number: name for name, model in MODELS.items()} | {17: "EQUIRECTANGULAR"}
    cameras = {}
    for _ in range(reader.count(24, "cameras")):
        key, number, width, height = reader.unpack("<IiQQ", "a camera")
        name = names.get(number, f"number {number}")
        count = MODELS[name].num_params if name in MODELS else 0
        cameras[key] = make_camera(
            name, width, height, reader.array("<f8", count, "its parameters"), f"{path}, camera {key}"
        )
    reader.end()
    return cameras


def _binary_images(path: Path) -> list[Image]:
    reader = ByteReader(read_bytes(path), path)
    observation = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])
    images = []
    for _ in range(reader.count(73, "images")):
        key, *pose, camera = reader.unpack("<I7dI", "an image")
        name = reader.text("the image's name")
        matrix = _pose(np.array(pose[:4]), np.array(pose[4:]), f"{path}, image {key}")
        seen = reader.array(observation, reader.count(observation.itemsize, "observations"), "observations")
        images.append(Image(name, camera, matrix, seen["pixel"], seen["point"]))
    reader.end()
    return images


def _binary_points(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    reader = ByteReader(read_bytes(path), path)
    record = np.dtype([("key", "<i8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8")])
    count = reader.count(record.itemsize + 8, "points")
    rows = []
    for _ in range(count):
        rows.append(reader.take(record.itemsize, "a point"))
        reader.take(8 * reader.count(8, "views of a point"), "the views of a point")
    reader.end()
    points = np.frombuffer(b"".join(rows), record)
    return points["key"], points["xyz"], points["rgb"], points["error"]


# ----------------------------------------------------------------------------------------------------------------- text
def _lines(path: Path) -> list[tuple[int, str]]:
    lines = [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1) if not line.startswith("#")]
    while lines and not lines[-1][1].strip():
        lines.pop()
    return lines


def _text_cameras(path: Path) -> dict[int, Camera]:
    cameras = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            key, model, width, height, *params = line.split()
            values = np.array([float(word) for word in params])
            cameras[int(key)] = make_camera(model, int(width), int(height), values, where)
        except ValueError:
            raise DataError(f"{where}: {line[:60]!r} is not 'id model width height parameters'; {AGAIN}") from None
    return cameras


def _text_images(path: Path) -> list[Image]:
    """Two lines an image; the second, of its observations, may be empty."""
    lines = _lines(path)
    images = []
    for index in range(0, len(lines), 2):
        number, line = lines[index]
        where = f"{path}, line {number}"
        try:
            words = line.split(maxsplit=9)
            pose, camera, name = [float(word) for word in words[1:8]], int(words[8]), words[9]
        except (ValueError, IndexError):
            raise DataError(f"{where}: {line[:60]!r} is not 'id qw qx qy qz tx ty tz camera name'; {AGAIN}") from None
        try:
            seen = np.array((lines[index + 1][1] if index + 1 < len(lines) else "").split(), dtype=np.float64).reshape(
                -1, 3
            )
            if not (np.abs(seen) < 2**53).all() or (seen[:, 2] != np.floor(seen[:, 2])).any():
                raise ValueError
            points = seen[:, 2].astype(np.int64)
        except ValueError:
            raise DataError(f"{path}, line {number + 1}: the observations are not 'x y point' each; {AGAIN}") from None
        images.append(Image(name, camera, _pose(np.array(pose[:4]), np.array(pose[4:]), where), seen[:, :2], points))
    return images


def _text_points(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    lines = _lines(path)
    rows = np.empty((len(lines), 8))
    for row, (number, line) in zip(rows, lines):
        words = line.split()
        try:
            row[:] = [float(word) for word in words[:8]]
            if len(words) % 2 or not (row[4:7] >= 0).all() or not (row[4:7] <= 255).all():
                raise ValueError
        except ValueError:
            raise DataError(
                f"{path}, line {number}: {line[:60]!r} is not 'id x y z r g b error views'; {AGAIN}"
            ) from None
    with np.errstate(invalid="ignore"):
        return rows[:, 0].astype(np.int64), rows[:, 1:4], rows[:, 4:7].astype(np.uint8), rows[:, 7]
