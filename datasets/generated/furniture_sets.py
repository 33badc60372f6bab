"""Whole data sets of generated furniture as arrays, cached."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from adlbench.datasets.generated.cache import Arrays, cached
from adlbench.datasets.generated.furniture import CLASSES, VERSION, make_shape, shape_rng


@lru_cache(maxsize=4)
def point_set(
    per_class: int,
    split: str,
    num_points: int,
    tilt: float,
    seed: int,
    turn: bool = True,
    classes: tuple[str, ...] = CLASSES,
) -> Arrays:
    """Points on every class's first ``per_class`` shapes of a split, in random order of the shapes.

    Each shape is turned about the up axis (y) by any angle (unless ``turn`` is false), tilted about x by up to ``tilt``
    degrees and scaled by 0.6 to 1. The order of the points is random, so that the first so many of them are a fair sample.

    Returns ``points``, ``normals`` float32 [N, P, 3], ``label`` int64 [N], ``point_label`` int64 [N, P].
    """
    parameters = {"per_class": per_class, "split": split, "num_points": num_points, "tilt": tilt, "seed": seed}
    parameters |= {} if turn else {"turn": False}
    parameters |= {} if classes == CLASSES else {"classes": classes}

    def order(count: int) -> np.ndarray:
        return np.random.default_rng([seed, per_class, split == "test"]).permutation(count)

    def standard() -> dict[tuple[str, int], tuple[np.ndarray, ...]]:
        """The shapes of the standard classes, which larger sets have in common with it, from their own cache entry."""
        arrays = point_set(per_class, split, num_points, tilt, seed, turn)
        names = [(name, i) for name in CLASSES for i in range(per_class)]
        rows = zip(*(arrays[field] for field in ("points", "normals", "point_label")))
        return {names[i]: row for i, row in zip(order(len(names)), rows)}

    def make() -> Arrays:
        made = standard() if set(CLASSES) < set(classes) else {}
        items = [
            (*(made.get((name, i)) or _posed_points((name, split, i), num_points, tilt, turn, seed)), label)
            for label, name in enumerate(classes)
            for i in range(per_class)
        ]
        points, normals, point_label, label = (np.stack([items[i][f] for i in order(len(items))]) for f in range(4))
        return {
            "points": points.astype(np.float32),
            "normals": normals.astype(np.float32),
            "label": label.astype(np.int64),
            "point_label": point_label.astype(np.int64),
        }

    return cached("furniture-points", VERSION, parameters, make)


def _posed_points(
    which: tuple[str, str, int], num_points: int, tilt: float, turn: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    name, split, number = which
    rng = shape_rng(seed + 1, name, split, number)  # of the pose and the samples; the shape has its own
    shape = make_shape(name, split, number, seed)
    posed = shape.posed(rng.uniform(0, 2 * np.pi) * turn, np.deg2rad(rng.uniform(-tilt, tilt)), rng.uniform(0.6, 1.0))
    return posed.surface(num_points, rng)


@lru_cache(maxsize=8)
def shape_set(name: str, count: int, split: str, *, num_sdf: int, num_surface: int, seed: int) -> Arrays:
    """The first ``count`` shapes of one class and split in their canonical orientation.

    Returns float32 ``sdf_points`` [N, S, 3], ``sdf`` [N, S], ``surface_points``, ``surface_normals`` [N, Q, 3].
    """
    parameters = {
        "name": name, "count": count, "split": split, "num_sdf": num_sdf, "num_surface": num_surface, "seed": seed
    }  # fmt: skip

    def make() -> Arrays:
        items: list[Sequence[np.ndarray]] = []
        for number in range(count):
            shape, rng = make_shape(name, split, number, seed), shape_rng(seed + 2, name, split, number)
            items.append((*shape.sdf_samples(num_sdf, rng), *shape.surface(num_surface, rng)[:2]))
        fields = ("sdf_points", "sdf", "surface_points", "surface_normals")
        return {field: np.stack(values).astype(np.float32) for field, values in zip(fields, zip(*items))}

    return cached("furniture-shapes", VERSION, parameters, make)
