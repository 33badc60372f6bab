"""Chamfer distance between two sets of points as a training loss. The metric is in ``benchmark.metrics.geometry``."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 2**24  # distances at once on a GPU


def chamfer(points: Tensor, truth: Tensor, squared: bool = True) -> Tensor:
    """Mean distance from ``points`` [N, 3] to their nearest in ``truth`` [M, 3], plus that back; a 0-d tensor.

    ``squared`` as in DeepSDF, else Euclidean (twice Occupancy Networks' mean of both directions). Differentiable in both
    sets for fixed neighbours; the gradient of the Euclidean distance of a point to itself is 0. In at least float32.
    """
    if not len(points) or not len(truth):
        raise ValueError(f"Chamfer distance of {len(points)} and {len(truth)} points; both sets need at least one")
    points, truth = (x if x.dtype == torch.float64 else x.float() for x in (points, truth))
    total = points.new_zeros(())
    for one, other in ((points, truth), (truth, points)):
        square = (one - other[nearest(one.detach(), other.detach())]).square().sum(1)
        if not squared:
            square = torch.where(square > 0, square, 1).sqrt() * (square > 0)
        total = total + square.mean()
    return total


def nearest(points: Tensor, others: Tensor) -> Tensor:
    """int64 [N]: which of ``others`` [M, 3] is nearest to each of ``points`` [N, 3]."""
    if points.device.type == "cpu":
        from scipy.spatial import KDTree

        _, index = KDTree(others.double().numpy()).query(points.double().numpy())
        return torch.from_numpy(index)
    parts = points.split(max(1, PAIRS // len(others)))
    return torch.cat(
        [torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist").argmin(1) for part in parts]
    )
