"""Pictures of labelled point clouds, for people."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [H, W, 3]

AZIMUTH, ELEVATION = np.radians(35.0), np.radians(20.0)  # of the viewer, who looks down at a cloud with y up
RIGHT, WRONG = (200, 200, 200), (214, 39, 40)


def palette(count: int) -> Picture:
    """``count`` colours uint8 [count, 3]; colour i does not depend on ``count``. The first 24 are well apart."""
    step = 0.302776  # of the hue, (sqrt(13) - 3) / 2: irrational enough not to come back close to an earlier one soon
    colours = [
        colorsys.hsv_to_rgb((0.76 + index * step) % 1.0, (1.0, 0.6)[index // 3 % 2], (0.95, 0.75, 0.5)[index % 3])
        for index in range(count)
    ]
    return np.round(np.array(colours).reshape(-1, 3) * 255).astype(np.uint8)


def draw_points(points: NDArray[np.floating], colours: Picture, size: int = 160, radius: int = 1) -> Picture:
    """A parallel view uint8 [size, size, 3] of ``points`` [P, 3] in ``colours`` [P, 3], near before far, on white."""
    centre = (points.min(0) + points.max(0)) / 2
    x, y, z = (points - centre).astype(np.float64).T
    right = np.cos(AZIMUTH) * x - np.sin(AZIMUTH) * z
    toward = np.sin(AZIMUTH) * x + np.cos(AZIMUTH) * z
    up = np.cos(ELEVATION) * y - np.sin(ELEVATION) * toward
    depth = np.sin(ELEVATION) * y + np.cos(ELEVATION) * toward  # towards the viewer
    extent = max(float(np.sqrt(x * x + y * y + z * z).max()), 1e-9)
    scale = (size / 2 - radius - 1) / extent
    column = np.round(size / 2 - 0.5 + right * scale).astype(np.int64)
    row = np.round(size / 2 - 0.5 - up * scale).astype(np.int64)
    order = np.argsort(depth, kind="stable")  # of several values for one pixel NumPy keeps the last: the nearest
    steps = np.arange(-radius, radius + 1)
    rows = (row[order, None, None] + steps[:, None] + 0 * steps).ravel()
    columns = (column[order, None, None] + 0 * steps[:, None] + steps).ravel()
    picture = np.full((size, size, 3), 255, dtype=np.uint8)
    picture[rows, columns] = np.repeat(colours[order], len(steps) ** 2, axis=0)
    return picture


def compare_labels(
    clouds: Iterable[NDArray], truth: Iterable[NDArray], predicted: Iterable[NDArray], num_labels: int
) -> Picture:
    """A column for each cloud: the true labels, the predicted ones, and in red where they differ."""
    colours = palette(num_labels)
    columns = []
    for points, true, guess in zip(clouds, truth, predicted, strict=True):
        errors = np.where((true == guess)[:, None], np.array(RIGHT), np.array(WRONG)).astype(np.uint8)
        columns.append(np.concatenate([draw_points(points, c) for c in (colours[true], colours[guess], errors)]))
    return np.concatenate(columns, axis=1)
