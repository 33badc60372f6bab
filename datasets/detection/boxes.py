"""What detection datasets share: images brought to one size with their boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.images import fit_image, fitted, image_size


def pad(rows: Sequence[np.ndarray], value: float, count: int) -> np.ndarray:
    """[N, count, ...]: N arrays with at most ``count`` entries each, filled up with ``value``."""
    result = np.full((len(rows), count, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        result[index, : len(row)] = row
    return result


def fit(path: Path, size: int, height: int, width: int) -> np.ndarray:
    """``fit_image`` of an image that is said to be ``width`` x ``height`` pixels. Raises DataError when it is not."""
    if image_size(path) != (height, width):
        raise DataError(f"{path} is not {width}x{height} pixels, as its annotation says; fetch both again")
    return fit_image(path, size)


def fit_map(values: np.ndarray, size: int, empty: int) -> np.ndarray:
    """[size, size] of a map [H, W] that goes with an image of ``fit_image``: nearest values, ``empty`` beside it."""
    scale = size / max(values.shape)
    height, width = fitted(values.shape[0], scale), fitted(values.shape[1], scale)
    result = np.full((size, size), empty, dtype=values.dtype)
    picture = Image.fromarray(values.astype(np.int32 if values.itemsize > 1 else np.uint8))
    result[:height, :width] = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST)).astype(values.dtype)
    return result
