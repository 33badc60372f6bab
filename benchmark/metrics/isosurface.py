"""The zero of a signed distance as a mesh, asking for the field only where its surface can be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from adlbench.benchmark.errors import AdlbenchError

Field = Callable[[NDArray[np.float32]], NDArray[np.floating]]  # [M, 3] -> [M]

COARSEST = 32  # cells along an axis
MAX_VERTICES = 2**31
SLACK = 1.5  # on the distance up to which a cell is looked into; true distances would need 1


def sample_field(field: Field, resolution: int) -> NDArray[np.float32]:
    """Values [R + 1, R + 1, R + 1] of ``field`` at the corners of R^3 cells that divide the cube [-1, 1]^3; axes x, y, z.

    Coarse to fine: a cell is looked into when the field changes sign on its corners, or is smaller there than the
    distance (times ``SLACK``) at which a surface could still pass through; elsewhere its values are interpolated. Right
    for anything that grows away from its zero about like a distance, also when it is clamped at 0.1 or above. Where a field
    is small and flat around a cell (a network before training) it is taken not to reach 0. Raises AdlbenchError for no cell.
    """
    if resolution < 1:
        raise AdlbenchError(f"a field on {resolution} cells along an axis; at least one is wanted")
    factor = 1
    while resolution % (2 * factor) == 0 and resolution // factor > COARSEST:
        factor *= 2
    n = resolution // factor
    values = np.asarray(field(_corners(np.ones((n + 1,) * 3, dtype=bool), n)), dtype=np.float32).reshape((n + 1,) * 3)
    while n < resolution:
        lowest, highest = _over_corners(values, np.minimum), _over_corners(values, np.maximum)
        smallest = _over_corners(np.abs(values), np.minimum)
        around = maximum_filter(highest, 3) - minimum_filter(lowest, 3)  # the range over the 27 cells around
        reach = SLACK * np.sqrt(3) / 2 * 2 / n  # half the diagonal of a cell: every point of it is so near to a corner
        cells = (smallest <= np.minimum(reach, around)) | ((lowest <= 0) & (highest > 0))
        n *= 2
        values = _refined(values)
        ask = np.zeros_like(values, dtype=bool)
        for offset in np.ndindex(3, 3, 3):
            ask[tuple(slice(o, o + n - 1, 2) for o in offset)] |= cells
        ask[::2, ::2, ::2] = False  # known from the level before
        if ask.any():
            values[ask] = field(_corners(ask, n))
    return values


def extract_mesh(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Marching cubes at 0 of ``values`` as ``sample_field`` returns them: vertices [V, 3] in [-1, 1]^3, faces [F, 3].

    Faces are counter-clockwise seen from where the field is positive. Without a change of sign both are empty; NaN counts as
    outside. In float32: a vertex is right to 1e-6 of the cube, and further by where rounding moves the field's zero.
    Vertices are numbered in 32 bits, as in scikit-image: a surface through 2^30 edges of the grid is refused. Raises
    AdlbenchError for it, and for values that are not on a cube of at least two points to a side.
    """
    from skimage.measure import marching_cubes

    if values.ndim != 3 or len(set(values.shape)) > 1 or len(values) < 2:
        raise AdlbenchError(
            f"a surface in values of shape {values.shape}; a cube of at least two points to a side is wanted"
        )
    lowest, highest = values.min(), values.max()
    if not np.isfinite([lowest, highest]).all():  # a NaN is the least and the largest
        values = np.nan_to_num(values, nan=1.0, posinf=1.0, neginf=-1.0)
        lowest, highest = values.min(), values.max()
    if not lowest < 0 < highest:
        return np.empty((0, 3), dtype=np.float32), np.empty((0, 3), dtype=np.int32)
    if 6 * values.size >= MAX_VERTICES and 2 * (crossed := _crossed_edges(values)) >= MAX_VERTICES:
        raise AdlbenchError(
            f"a surface through {crossed:,} edges of the grid, whose vertices cannot be numbered in 32 bits; "
            "lower the resolution, or smooth the field"
        )
    spacing = (2 / (len(values) - 1),) * 3
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=spacing, gradient_direction="descent")
    return (vertices - 1).astype(np.float32, copy=False), faces.astype(np.int32, copy=False)


def _crossed_edges(values: NDArray[np.float32]) -> int:
    """How many edges of the grid the surface passes through: each has a vertex of it. So have some ambiguous cells inside;
    those have six such edges or more, which four cells share: fewer of them than of the edges."""
    positive = values > 0
    return sum(int(np.count_nonzero(np.diff(positive, axis=axis))) for axis in range(3))


def _corners(chosen: NDArray[np.bool_], n: int) -> NDArray[np.float32]:
    """Positions [M, 3] of the ``chosen`` [n + 1, n + 1, n + 1] grid points."""
    return (np.argwhere(chosen) * (2 / n) - 1).astype(np.float32)


def _over_corners(values: NDArray, combine: np.ufunc) -> NDArray:
    """[n, n, n] from [n + 1, n + 1, n + 1]: the eight corners of every cell, combined."""
    for axis in range(3):
        lower = np.take(values, np.arange(values.shape[axis] - 1), axis)
        values = combine(lower, np.take(values, np.arange(1, values.shape[axis]), axis))
    return values


def _refined(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Twice the cells, linear in between."""
    for axis in range(3):
        first = np.moveaxis(values, axis, 0)
        finer = np.empty((2 * len(first) - 1, *first.shape[1:]), dtype=np.float32)
        finer[::2] = first
        finer[1::2] = (first[:-1] + first[1:]) / 2
        values = np.moveaxis(finer, 0, axis)
    return np.ascontiguousarray(values)
