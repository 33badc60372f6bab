"""What datasets of point clouds share: clouds of one size, in one frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def draw(count: int, wanted: int, name: str) -> np.ndarray:
    """int64 [wanted]: indices below ``count``, each at most once while they last. They depend on ``name`` alone."""
    order = np.random.default_rng(zlib.crc32(name.encode())).permutation(count)
    return np.resize(order, wanted)


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """[P, 3] about their mean, the farthest at distance 1, as PointNet has them."""
    centred = points - points.mean(axis=0)
    radius = np.linalg.norm(centred, axis=1).max()
    return (centred / max(float(radius), 1e-12)).astype(np.float32)


def y_up(vectors: np.ndarray) -> np.ndarray:
    """[P, 3] from a frame with z up to this project's, with y up: x stays, y turns backwards."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], axis=1)


def stamp(files: Iterable[Path], root: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of change: what a cache of converted files depends on."""
    return [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
