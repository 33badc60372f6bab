"""``transforms.json`` of instant-ngp and nerfstudio: photographs with calibrated, perhaps distorting cameras.

Beside what Blender's files have (``datasets/formats/blender.py``), intrinsics stand in pixels, for all frames or in each frame, with
OpenCV's distortion. Camera-to-world matrices are in OpenGL axes; what leaves is world to camera in OpenCV axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.blender import OPENGL_TO_OPENCV
from adlbench.datasets.formats.camera_models import Camera, make_camera
from adlbench.datasets.formats.files import AGAIN, are_rigid, inside, read_json

FISHEYE = ("k1", "k2", "k3", "k4")
BROWN = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")


@dataclass(frozen=True)
class Transforms:
    images: tuple[Path, ...]  # N
    cameras: tuple[Camera, ...]  # N
    world_to_camera: np.ndarray  # float64 [N, 4, 4]
    box: float  # instant-ngp's aabb_scale, 0 where it is not given
    times: np.ndarray | None  # float64 [N], where every frame has one
    splits: dict[str, tuple[int, ...]]  # nerfstudio's train_filenames etc. as frame numbers, where they are given


def read_transforms(path: Path) -> Transforms:
    """Frames by file name. Raises DataError for a frame that is no camera or whose picture lies outside the folder."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
        raise DataError(f"{path} has no list of frames; {AGAIN}")
    frames = []
    for number, frame in enumerate(content["frames"]):
        where = f"{path}, frame {number}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise DataError(f"{where} has no file_path; {AGAIN}")
        name = frame["file_path"].removeprefix("./")
        image = inside(path.parent, name, path)
        if not image.suffix:
            image = image.with_suffix(".png")
        frames.append(
            (name, image, _pose(frame.get("transform_matrix"), where), _camera(content | frame, where), frame)
        )
    frames.sort(key=lambda frame: frame[0])
    names = [name for name, *_ in frames]
    if len(set(names)) != len(names):
        raise DataError(f"{path} names a picture twice; every frame needs its own")
    times = [frame.get("time") for *_, frame in frames]
    timed = all(type(time) in (int, float) for time in times)
    lists = {split: content.get(f"{split}_filenames") for split in ("train", "val", "test")}
    return Transforms(
        tuple(image for _, image, *_ in frames),
        tuple(camera for *_, camera, _ in frames),
        np.stack([pose for _, _, pose, *_ in frames]),
        _number(content, "aabb_scale", 0.0, str(path)),
        np.array(times, dtype=np.float64) if timed else None,
        {split: _members(listed, names, path) for split, listed in lists.items() if listed is not None},
    )


def _members(listed: Any, names: list[str], path: Path) -> tuple[int, ...]:
    wanted = [str(name).removeprefix("./") for name in listed] if isinstance(listed, list) else []
    absent = set(wanted) - set(names)
    if absent or not wanted:
        raise DataError(
            f"{path}: a list of file names has {next(iter(absent), 'nothing')[:80]!r}, which is no frame; {AGAIN}"
        )
    return tuple(sorted(names.index(name) for name in wanted))


def _pose(matrix: Any, where: str) -> np.ndarray:
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pose = np.empty(0)
    if pose.shape == (3, 4):
        pose = np.concatenate([pose, [[0, 0, 0, 1]]])
    if pose.shape != (4, 4) or not are_rigid(pose[None], 1e-2)[0]:
        raise DataError(f"{where}: its transform_matrix is no rigid motion; export the scene without scale")
    u, _, v = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = u @ v  # published files round; a rotation that is not quite one would bend rays
    inverse: np.ndarray = np.linalg.inv(pose @ OPENGL_TO_OPENCV)
    return inverse


def _number(entries: dict[str, Any], key: str, default: float, where: str) -> float:
    value = entries.get(key, default)
    if type(value) not in (int, float) or not -1e9 < value < 1e9:
        raise DataError(f"{where}: {key} is {str(value)[:40]!r}, which is no number; correct it")
    return float(value)


def _camera(entries: dict[str, Any], where: str) -> Camera:
    def get(key: str, default: float = 0.0) -> float:
        return _number(entries, key, default, where)

    width, height = get("w"), get("h")
    if width != int(width) or height != int(height) or min(width, height) < 1:
        raise DataError(f"{where}: w {width:g} and h {height:g} must be the picture's size in pixels")
    angle = get("camera_angle_x")
    if "fl_x" not in entries and not 0 < angle < np.pi:
        raise DataError(f"{where}: it has neither fl_x nor camera_angle_x, so its focal length is not known; add one")
    fx = get("fl_x", 0.5 * width / np.tan(0.5 * angle) if angle else 0.0)
    pinhole = [fx, get("fl_y", fx), get("cx", width / 2), get("cy", height / 2)]
    model = str(entries.get("camera_model", "OPENCV_FISHEYE" if entries.get("is_fisheye") else "OPENCV"))
    known = {
        "PINHOLE": "PINHOLE",
        "SIMPLE_PINHOLE": "PINHOLE",
        "OPENCV_FISHEYE": "OPENCV_FISHEYE",
        "OPENCV": "FULL_OPENCV",
    }
    if model not in known:
        raise DataError(f"{where}: camera_model is {model[:40]!r}; read are {', '.join(known)}")
    keys = {"OPENCV_FISHEYE": FISHEYE, "FULL_OPENCV": BROWN}.get(known[model], ())
    params = np.array([*pinhole, *(get(key) for key in keys)])
    return make_camera(known[model], int(width), int(height), params, where)
