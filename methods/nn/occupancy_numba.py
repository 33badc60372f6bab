"""Marching through an occupancy grid on a CPU, compiled by numba. The rules are those of ``occupancy_grid``."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")  # the decorator has no types


def march(
    origins: Tensor, directions: Tensor, bounds: Tensor, low: Tensor, size: Tensor, occupied: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Rays, depths and lengths [M] of the samples.

    Args:
        origins, directions: [R, 3].
        bounds: [4, R] near, far, step, and the sample's share of its step.
        low, size: [3] of the grid's box.
        occupied: bool [n, n, n].
    """
    near, far, step, _ = bounds
    steps = ((far - near) / step).clamp(min=0).ceil().long()
    most = int(steps.sum())
    ray = torch.empty(most, dtype=torch.int64)
    places = bounds.new_empty(2, most)
    arrays = [x.detach().contiguous().numpy() for x in (origins, directions, bounds, steps, low, size, occupied)]
    found = _march(*arrays, ray.numpy(), places.numpy())
    return ray[:found], places[0, :found], places[1, :found]


@_jit
def _march(
    origins: Floats, directions: Floats, bounds: Floats, steps: Integers, low: Floats, size: Floats,
    occupied: NDArray[np.bool_], ray: Integers, places: Floats,
) -> int:  # fmt: skip
    resolution = np.float32(len(occupied))
    cell = np.zeros(3, np.int64)
    found = 0
    for index in range(len(origins)):
        near, far, step, share = bounds[:, index]
        shift = share * step
        for k in range(steps[index]):
            start = near + np.float32(k) * step  # rounded as torch does
            depth = start + shift
            if not depth < far:
                break
            inside = True
            for axis in range(3):
                point = origins[index, axis] + depth * directions[index, axis]
                place = (point - low[axis]) / size[axis] * resolution
                if not 0 <= place < resolution:  # nor is what is not a number
                    inside = False
                    break
                cell[axis] = int(place)
            if inside and occupied[cell[0], cell[1], cell[2]]:
                ray[found] = index
                places[0, found], places[1, found] = depth, min(step, far - start)
                found += 1
    return found
