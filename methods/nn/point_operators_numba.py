"""Operators of ``point_operators`` for a CPU, compiled by numba: a pass over the cloud for each point chosen, or asking.

Sums of squares are rounded as in ``point_operators._squared``, so that it does not matter which of the two decides what is
inside a ball.
"""

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
_jit: Any = numba.njit(nogil=True, cache=True)
_jit_fast: Any = numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})  # a maximum in vector registers


def sample(points: Tensor, count: int, start: int, sizes: Tensor) -> Tensor:
    """int64 [B, count]; arguments as of ``point_operators._sample``."""
    chosen = torch.empty(len(points), count, dtype=torch.int64)
    for cloud, size, out in zip(points, sizes.tolist(), chosen, strict=True):
        _sample(cloud[:size].t().contiguous().numpy(), start, out.numpy())
    return chosen


@_jit_fast
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


def nearest(points: Tensor, queries: Tensor, index: Tensor) -> None:
    """Fills ``index`` int64 [M, k] with the nearest of ``points`` [N, D] to each of ``queries`` [M, D]; k <= N."""
    _nearest(points.t().contiguous().numpy(), queries.numpy(), index.numpy())


def first_in_balls(points: Tensor, queries: Tensor, radius: float, index: Tensor, found: Tensor) -> None:
    """Fills ``index`` int64 [M, K] and ``found`` int64 [M] as ``ball_query`` returns them for one cloud."""
    axes = points.t().contiguous().numpy()
    _first_in_balls(axes, queries.numpy(), axes.dtype.type(radius * radius), index.numpy(), found.numpy())


@_jit
def _squares(axes: Floats, first: int, query: Floats, square: Floats) -> int:
    """Squared distances from ``query`` [D] to points ``first`` on, as many as ``square`` holds or there are: their number."""
    many = min(len(square), axes.shape[1] - first)
    square[:many] = 0
    for axis in range(len(axes)):
        here = query[axis]
        for i in range(many):
            step = axes[axis, first + i] - here
            square[i] += step * step
    return many


@_jit
def _nearest(axes: Floats, queries: Floats, index: Integers) -> None:
    k = index.shape[1]
    square, best = np.empty(BLOCK, axes.dtype), np.empty(k, axes.dtype)
    for asking in range(len(queries)):
        found = 0
        for first in range(0, axes.shape[1], BLOCK):
            for i in range(_squares(axes, first, queries[asking], square)):
                if found == k and not square[i] < best[k - 1]:
                    continue
                place = min(found, k - 1)
                while place > 0 and best[place - 1] > square[i]:
                    best[place], index[asking, place] = best[place - 1], index[asking, place - 1]
                    place -= 1
                best[place], index[asking, place] = square[i], first + i
                found = min(found + 1, k)


@_jit
def _first_in_balls(axes: Floats, queries: Floats, limit: float, index: Integers, found: Integers) -> None:
    count = index.shape[1]
    square = np.empty(BLOCK, axes.dtype)
    for asking in range(len(queries)):
        inside = 0
        for first in range(0, axes.shape[1], BLOCK):
            for i in range(_squares(axes, first, queries[asking], square)):
                if square[i] < limit:
                    index[asking, inside] = first + i
                    inside += 1
                    if inside == count:
                        break
            if inside == count:
                break
        found[asking] = inside
        for place in range(inside, count):
            index[asking, place] = index[asking, 0] if inside else 0
