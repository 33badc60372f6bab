"""Photographs that come inside installed packages, as signals to be fitted: a position in, a colour out.

``held_out=False``: every pixel is trained on and scored, which asks how much a representation can hold. ``held_out=True``:
every second pixel in each axis is trained on and all others are scored, as in Tancik et al. 2020, which asks what it puts
between the samples. (They score the pixels odd in both axes only, a third of those scored here.)
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality

# name -> (package, file in it, channels). Only files of the wheels themselves, so that nothing is ever downloaded.
PHOTOGRAPHS = {
    "camera": ("skimage", "data/camera.png", 1),
    "astronaut": ("skimage", "data/astronaut.png", 3),
    "chelsea": ("skimage", "data/chelsea.png", 3),
    "coffee": ("skimage", "data/coffee.png", 3),
    "rocket": ("skimage", "data/rocket.jpg", 3),
    "china": ("sklearn", "datasets/images/china.jpg", 3),
    "flower": ("sklearn", "datasets/images/flower.jpg", 3),
}


@dataclass(frozen=True)
class Photographs(Dataset):
    """Instances are photographs; items are pixels: ``coords`` of the pixel's centre in [-1, 1]^2 (x right, y down) and
    ``value``, grey or RGB as the file has it, in [0, 1]. Pixels come row by row."""

    photographs: tuple[str, ...] = ("camera",)
    size: int = 256  # pixels of a side: the central square, averaged over areas
    held_out: bool = False

    def instances(self) -> tuple[str, ...]:
        return self.photographs

    def missing(self) -> str | None:
        absent = sorted({PHOTOGRAPHS[n][0] for n in self.photographs if n in PHOTOGRAPHS and _path(n) is None})
        return f"install the packages that hold the photographs: {', '.join(absent)}" if absent else None

    def schema(self, instance: str = "camera") -> DataSchema:
        channels = _entry(instance)[2]
        if self.size < 2 or (self.held_out and self.size % 2):
            raise DataError(
                f"size={self.size}: give at least 2 pixels, and an even number to hold every second one out"
            )
        train = int(self._trained().sum())
        return DataSchema(
            modality=Modality.FIELD,
            fields=("coords", "value"),
            num_train=train,
            num_test=self.size**2 - train if self.held_out else train,
            channels=channels,
            image_size=(self.size, self.size),
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        self.schema(instance)
        value = read_photograph(instance, self.size)
        trained = self._trained()
        chosen = ~trained if split == "test" and self.held_out else trained
        return ArraySplit(coords=pixel_centres(self.size, self.size)[chosen], value=value[chosen])

    def _trained(self) -> np.ndarray:
        """bool [H, W]: the pixels of the training split."""
        trained = np.ones((self.size, self.size), dtype=bool)
        if self.held_out:
            trained[1::2] = trained[:, 1::2] = False
        return trained


def pixel_centres(height: int, width: int) -> np.ndarray:
    """float32 [H, W, 2]: x right, y down; the outer edges of the outer pixels are at -1 and 1."""
    x = (2 * np.arange(width) + 1) / width - 1
    y = (2 * np.arange(height) + 1) / height - 1
    return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)


def read_photograph(name: str, size: int) -> np.ndarray:
    """float32 [size, size, C] in [0, 1]: the central square of the picture, each pixel the mean of the area it covers."""
    from PIL import Image

    path = _path(name)
    if path is None:
        raise DataError(
            f"photograph {name!r} is not installed; it comes with the package {_entry(name)[0]!r}: reinstall it"
        )
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if _entry(name)[2] == 1 else "RGB"), dtype=np.float64) / 255.0
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} cannot be decoded ({error}); reinstall the package {_entry(name)[0]!r}") from None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    side = min(pixels.shape[:2])
    if size > side:
        raise DataError(f"size={size}: photograph {name!r} has only {side} pixels along its shorter side")
    top, left = ((extent - side) // 2 for extent in pixels.shape[:2])
    weights = _area_weights(side, size)
    square = pixels[top : top + side, left : left + side]
    return np.einsum("ia,abc,jb->ijc", weights, square, weights, optimize=True).astype(np.float32)


def _area_weights(source: int, target: int) -> np.ndarray:
    """[target, source]: the share of each source pixel in each target pixel, rows sum to 1."""
    edges = np.linspace(0, source, target + 1)
    left, right = edges[:-1, None], edges[1:, None]
    pixel = np.arange(source)[None]
    overlap = np.clip(np.minimum(right, pixel + 1) - np.maximum(left, pixel), 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)


def _entry(name: str) -> tuple[str, str, int]:
    if name not in PHOTOGRAPHS:
        raise DataError(f"there is no photograph {name!r}; known: {', '.join(PHOTOGRAPHS)}")
    return PHOTOGRAPHS[name]


def _path(name: str) -> Path | None:
    package, file, _ = _entry(name)
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders)), file) if folders else None
    return path if path is not None and path.is_file() else None
