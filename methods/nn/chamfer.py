"""Chamfer distance between two sets of points as a training loss. The metric is in ``benchmark.metrics.geometry``."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import DataError

PAIRS = 2**24  # distances at once on a GPU


def chamfer(points: Tensor, truth: Tensor, squared: bool = True) -> Tensor:
    """Mean distance from ``points`` [N, 3] to their nearest in ``truth`` [M, 3], plus that back; a 0-d tensor.

    ``squared`` as in DeepSDF, else Euclidean (twice Occupancy Networks' mean of both directions). Differentiable in both
    sets for fixed neighbours; the gradient of the Euclidean distance of a point to itself is 0. In at least float32, right to
    1e-6 of itself; bfloat16 points are read as float32. Indices are int64 and pairs are never numbered: sizes beyond 2^31 are
    a question of memory only. Raises DataError for sets without points, of other shapes, or with what is not finite.
    """
    if points.dim() != 2 or truth.dim() != 2 or points.shape[1] != truth.shape[1] or not points.shape[1]:
        raise DataError(
            f"Chamfer distance of points {list(points.shape)} and {list(truth.shape)}; wanted: [N, 3], [M, 3]"
        )
    if not len(points) or not len(truth):
        raise DataError(f"Chamfer distance of {len(points)} and {len(truth)} points; both sets need at least one")
    points, truth = (x if x.dtype == torch.float64 else x.float() for x in (points, truth))
    total = points.new_zeros(())
    sets = (points, truth)
    for one, other, index in zip(sets, reversed(sets), nearest(points.detach(), truth.detach())):
        step = one - other.index_select(0, index)
        distance = step.square().sum(1) if squared else torch.linalg.vector_norm(step, dim=1)
        total = total + distance.mean()
    return total


def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [N], [M]: which of ``others`` [M, 3] is nearest to each of ``points`` [N, 3], and the other way round."""
    if points.device.type == "cpu":
        return _nearest_by_trees(points.double().numpy(), others.double().numpy())
    return _nearest_by_pairs(points, others), _nearest_by_pairs(others, points)


def _nearest_by_trees(points: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    from scipy.spatial import cKDTree

    try:
        trees = [cKDTree(x, leafsize=16, balanced_tree=False) for x in (points, others)]
    except ValueError as error:
        message = "Chamfer distance of a point that is not finite; what made it has diverged, or is damaged"
        raise DataError(message) from error
    found = []
    for asking, answering in (trees, trees[::-1]):
        order = asking.indices  # neighbours ask one after the other and find the cache warm: a quarter faster
        index = np.empty(len(order), dtype=np.int64)
        index[order] = answering.query(asking.data[order])[1]
        found.append(torch.from_numpy(index))
    return found[0], found[1]


def _nearest_by_pairs(points: Tensor, others: Tensor) -> Tensor:
    parts = points.split(max(1, PAIRS // len(others)))
    return torch.cat(
        [torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist").argmin(1) for part in parts]
    )
