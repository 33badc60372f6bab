"""Farthest point sampling for a CPU, compiled by numba: one pass over a cloud for each point that is chosen."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

BLOCK = 256  # points whose largest distance is kept
_jit: Any = numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})  # a maximum in vector registers


def sample(points: Tensor, count: int, start: int, sizes: Tensor) -> Tensor:
    """int64 [B, count]; arguments as of ``point_operators._sample``."""
    chosen = torch.empty(len(points), count, dtype=torch.int64)
    for cloud, size, out in zip(points, sizes.tolist(), chosen, strict=True):
        _sample(cloud[:size].t().contiguous().numpy(), start, out.numpy())
    return chosen


@_jit
def _sample(axes: Floats, start: int, chosen: Integers) -> None:
    dimensions, size = axes.shape
    distance = np.full(size, np.inf, axes.dtype)
    square = np.empty(BLOCK, axes.dtype)
    largest = np.empty((size + BLOCK - 1) // BLOCK, axes.dtype)
    last = start
    for index in range(len(chosen)):
        chosen[index] = last
        for block in range(len(largest)):
            first = block * BLOCK
            many = min(BLOCK, size - first)
            square[:many] = 0
            for axis in range(dimensions):
                here = axes[axis, last]
                for i in range(many):
                    step = axes[axis, first + i] - here
                    square[i] += step * step
            most = axes.dtype.type(-1)
            for i in range(many):
                nearest = min(distance[first + i], square[i])
                distance[first + i] = nearest
                most = max(most, nearest)
            largest[block] = most
        farthest = 0
        for block in range(1, len(largest)):
            if largest[block] > largest[farthest]:
                farthest = block
        last = start
        for i in range(farthest * BLOCK, min((farthest + 1) * BLOCK, size)):
            if distance[i] == largest[farthest]:  # the first of equals
                last = i
                break
