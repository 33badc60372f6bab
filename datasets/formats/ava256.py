"""Cameras and frames of an Ava-256 capture (Martinez et al. 2024): ``camera_calibration.json`` and ``frame_list.csv``.

The matrices in the json are transposed, lengths are millimetres, and pixel centres lie at whole numbers; what leaves is this
project's convention, in metres.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.files import AGAIN, are_rotations, read_json, read_text


class Calibration(NamedTuple):
    names: tuple[str, ...]  # N, such as 400944
    intrinsics: np.ndarray  # float64 [N, 3, 3], pixels of the 2668x4096 sensor, centres at +0.5
    world_to_camera: np.ndarray  # float64 [N, 4, 4], OpenCV axes, metres


def read_calibration(path: Path) -> Calibration:
    content = read_json(path)
    entries = content.get("KRT") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} has no list KRT of cameras; {AGAIN}")
    found = {}
    for number, entry in enumerate(entries):
        try:
            name, matrices = str(entry["cameraId"]), (_matrix(entry["K"], 3), _matrix(entry["T"], 4))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, camera {number} has no cameraId, K and T ({error}); {AGAIN}") from None
        sound = are_rotations(matrices[1][None, :3, :3], 1e-3)[0] and (np.diag(matrices[0])[:2] > 0).all()
        if not sound or name in found:
            raise DataError(f"{path}, camera {number} ({name[:40]}) is twice there, or no calibration; {AGAIN}")
        found[name] = matrices
    names = tuple(sorted(found))
    intrinsics = np.stack([found[name][0] for name in names])
    intrinsics[:, :2, 2] += 0.5
    poses = np.stack([found[name][1] for name in names])
    poses[:, :3, 3] /= 1000
    return Calibration(names, intrinsics, poses)


def _matrix(values: Any, size: int) -> np.ndarray:
    matrix = np.array(values, dtype=np.float64).T
    if matrix.shape == (3, 4) and size == 4:
        matrix = np.concatenate([matrix, [[0, 0, 0, 1]]])
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise ValueError(f"a matrix of shape {matrix.shape}, not {size}x{size}, or not finite")
    matrix[-1] = np.eye(size)[-1]
    return matrix


def read_frames(path: Path) -> list[tuple[str, int]]:
    """(segment, frame) of each line of ``frame_list.csv``."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        frames = [(str(row["seg_id"]), int(row["frame_id"])) for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no table of seg_id and frame_id ({type(error).__name__}: {error}); {AGAIN}"
        ) from None
    if not frames or min(frame for _, frame in frames) < 0:
        raise DataError(f"{path} lists no frames, or negative ones; {AGAIN}")
    return frames
