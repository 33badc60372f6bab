"""Sampling, searching and interpolating in point clouds: the operators of PointNet++ and of what came after it.

C. R. Qi, L. Yi, H. Su and L. J. Guibas, PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space,
NIPS 2017, with the conventions of its published kernels (tf_sampling, tf_grouping, tf_interpolate): sampling starts at point
0, a ball has the *first* K points in index order with d < r (not the nearest ones), short balls repeat their first point,
and interpolation weighs by 1 / d^2, not 1 / d.

Clouds are [B, N, D], padded where their sizes differ: ``lengths`` [B] says how many points of each are real. Indices are
int64 rows of the own cloud. Positions may have any type; half precision is searched in single. Indices have no gradient;
``group_points`` and ``interpolate`` pass it on to the features, not to the positions. In float32 a point within 1e-6 of a
ball's radius may fall on either side of it, and so may neighbours that are so nearly equally far.

Points in few dimensions are searched with SciPy's k-d tree on the CPU, or in loops over all pairs where these are few. On a
GPU, in many dimensions and in small clouds without numba the distances are computed in blocks, so that memory does not grow
with the product of the sizes. All indices and their products are int64: sizes beyond 2^31 are a question of memory only.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.sparse_tensor import compiled

_BLOCK = 2**22  # distances at a time on the CPU: 16 MiB
_GPU_BLOCK = 2**27
_TREE_DIMENSIONS, _TREE_POINTS = 6, 512  # from where on a tree is faster than all distances
_LOOP_PAIRS = 2**21  # up to where compiled loops over all pairs are faster than both
_CACHED_POINTS = 2**14  # clouds that are sampled side by side have together at most so many points


# -------------------------------------------------------------------------------------------------------------- sampling
def farthest_point_sampling(points: Tensor, count: int, start: int = 0, lengths: Tensor | None = None) -> Tensor:
    """int64 [B, count]: from ``start`` on, always the point that is farthest from those chosen; the first of several.

    Where a cloud has fewer distinct points than ``count``, point 0 is repeated, as in the published kernel.
    ``points`` [B, N, D]. Raises DataError for clouds without points, ``start`` outside of them or a negative ``count``.
    """
    coordinates, sizes = _clouds(points, lengths, "points")
    if count < 0:
        raise DataError(f"{count} points wanted of each cloud; ask for 0 or more")
    if start < 0 or start >= int(sizes.min()):
        raise DataError(f"sampling cannot start at point {start} of a cloud of {int(sizes.min())} points")
    clouds, most = len(coordinates), coordinates.shape[1]
    if compiled(points):
        found: Tensor = _numba().sample(coordinates, count, start, sizes)
        return found
    if points.device.type == "cpu":
        together = max(1, _CACHED_POINTS // most)
        parts = [_sample(coordinates[i : i + together], count, start, sizes[i : i + together])
                 for i in range(0, clouds, together)]  # fmt: skip
        return torch.cat(parts)
    return _sample(coordinates, count, start, sizes)


def _sample(points: Tensor, count: int, start: int, sizes: Tensor) -> Tensor:
    """Keeps each point's squared distance to the chosen ones and updates it with each that is chosen: O(N count)."""
    clouds, most, dimensions = points.shape
    axes = points.permute(2, 0, 1).contiguous()  # [D, B, N]
    distance = torch.full((clouds, most), torch.inf, dtype=points.dtype, device=points.device)
    distance[torch.arange(most, device=points.device) >= sizes[:, None]] = -1.0  # padding is never the farthest
    step, square = torch.empty_like(distance), torch.empty_like(distance)
    chosen = torch.full((clouds, count), start, dtype=torch.int64, device=points.device)
    rows = torch.arange(clouds, device=points.device)
    for index in range(1, count):
        last = axes[:, rows, chosen[:, index - 1]][..., None]  # [D, B, 1]
        torch.sub(axes[0], last[0], out=step)
        torch.mul(step, step, out=square)
        for axis in range(1, dimensions):
            torch.sub(axes[axis], last[axis], out=step)
            square.addcmul_(step, step)
        torch.minimum(distance, square, out=distance)
        chosen[:, index] = _argmax(distance)
    return chosen[:, :count]


def _argmax(values: Tensor) -> Tensor:
    """Along the last dimension, the first of equals; NumPy's is several times faster on the CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().argmax(-1))
    return values.argmax(-1)


# ------------------------------------------------------------------------------------------------------------- searching
class Neighbours(NamedTuple):
    """The k points nearest to each query, by rising distance."""

    index: Tensor  # type: ignore[assignment]  # int64 [B, M, k]
    squared_distance: Tensor  # [B, M, k], in the type of the points


def k_nearest(points: Tensor, queries: Tensor, k: int, lengths: Tensor | None = None) -> Neighbours:
    """The ``k`` nearest of ``points`` [B, N, D] to each of ``queries`` [B, M, D]; among equally distant ones any.

    A query that is itself a point finds itself, at distance 0. Raises DataError where a cloud has fewer than ``k`` points.
    """
    coordinates, sizes = _clouds(points, lengths, "points")
    wanted = _queries(queries, coordinates)
    if k < 1 or k > int(sizes.min()):
        raise DataError(f"{k} neighbours wanted in a cloud of {int(sizes.min())} points; lower k or drop the cloud")
    index = _search(coordinates, wanted, k, sizes)
    # from the found pairs anew: exact where a matrix of distances, or other rounding, is not
    return Neighbours(index, _pair_distances(coordinates, wanted, index).to(points.dtype))


def _search(points: Tensor, queries: Tensor, k: int, sizes: Tensor) -> Tensor:
    """int64 [B, M, k]: all of a smaller cloud's points come first, then 0."""
    index = torch.zeros((*queries.shape[:2], k), dtype=torch.int64, device=points.device)
    for cloud, size in enumerate(sizes.tolist()):
        own, asking, found = points[cloud, :size], queries[cloud], index[cloud, :, : min(k, size)]
        there = found.shape[1]
        if _use_loops(own, asking):
            _numba().nearest(own, asking, found)
        elif _use_tree(own):
            nearest = cKDTree(own.numpy()).query(asking.numpy(), k=[*range(1, there + 1)])[1]
            found.copy_(torch.from_numpy(nearest.reshape(-1, there)))
        else:
            for block in _query_blocks(asking, size):
                found[block] = _squared_distances(asking[block], own).topk(there, dim=1, largest=False).indices
    return index


class Ball(NamedTuple):
    """The first K points inside the ball around each query."""

    index: Tensor  # type: ignore[assignment]  # int64 [B, M, K]: in index order, then the first one repeated; 0 where the ball is empty
    found: Tensor  # int64 [B, M]: points before the repetitions, at most K


def ball_query(points: Tensor, queries: Tensor, radius: float, count: int, lengths: Tensor | None = None) -> Ball:
    """Of ``points`` [B, N, D] the first ``count`` with distance < ``radius`` (not <=) to each of ``queries`` [B, M, D].

    An endless radius finds all. Raises DataError for one whose square is 0 in the precision of the points.
    """
    coordinates, sizes = _clouds(points, lengths, "points")
    wanted = _queries(queries, coordinates)
    if count < 1 or not radius > 0:
        raise DataError(f"a ball of radius {radius} with {count} points; both must be positive")
    radius = min(radius, math.sqrt(torch.finfo(coordinates.dtype).max))  # farther is nothing whose square can be told
    if radius * radius < torch.finfo(coordinates.dtype).tiny:
        raise DataError(f"a ball of radius {radius}, too small for {coordinates.dtype}; scale the points up")
    index = torch.zeros((*wanted.shape[:2], count), dtype=torch.int64, device=points.device)
    found = torch.zeros(wanted.shape[:2], dtype=torch.int64, device=points.device)
    for cloud, size in enumerate(sizes.tolist()):
        own = coordinates[cloud, :size]
        if _use_loops(own, wanted[cloud]):
            _numba().first_in_balls(own, wanted[cloud], radius, index[cloud], found[cloud])
            continue
        pairs = _pairs_by_tree if _use_tree(own) else _pairs_by_distance
        for block, row, column in pairs(own, wanted[cloud], radius):
            _first_of_each_row(row, column, index[cloud, block], found[cloud, block])
    return Ball(index, found)


def _first_of_each_row(row: Tensor, column: Tensor, index: Tensor, found: Tensor) -> None:
    """Of pairs sorted by row and column the first columns of each row, into ``index`` [m, K] and ``found`` [m]."""
    count = index.shape[1]
    total = torch.bincount(row, minlength=len(index))
    rank = torch.arange(len(row), device=row.device) - (total.cumsum(0) - total)[row]
    kept = rank < count
    index[row[kept], rank[kept]] = column[kept]
    found.copy_(total.clamp(max=count))
    index.copy_(torch.where(torch.arange(count, device=row.device) < found[:, None], index, index[:, :1]))


def _pairs_by_distance(points: Tensor, queries: Tensor, radius: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    for block in _query_blocks(queries, len(points)):
        inside = _squared_distances(queries[block], points) < radius * radius
        flat = _nonzero(inside.flatten())
        yield block, flat // len(points), flat % len(points)


def _pairs_by_tree(points: Tensor, queries: Tensor, radius: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    tree, reach = cKDTree(points.numpy()), radius * (1 + 1e-6)  # whether a point is inside is decided below, as above
    sizes = tree.query_ball_point(queries.numpy(), reach, return_length=True).cumsum()
    start = 0
    while start < len(queries):  # so many queries that their pairs fit into a block
        before = sizes[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(sizes, before + _BLOCK, side="right")))
        near = cKDTree(queries[start:end].numpy()).sparse_distance_matrix(tree, reach, output_type="ndarray")
        key = np.sort(near["i"] * len(points) + near["j"])
        row, column = torch.from_numpy(key // len(points)), torch.from_numpy(key % len(points))
        inside = _squared(queries[start:end].index_select(0, row), points.index_select(0, column)) < radius * radius
        yield slice(start, end), row[inside], column[inside]
        start = end


# --------------------------------------------------------------------------------------------- grouping and interpolating
def group_points(features: Tensor, index: Tensor) -> Tensor:
    """[B, ..., C]: the rows ``index`` int64 [B, ...] of each cloud of ``features`` [B, N, C].

    Raises DataError for an index outside of 0 .. N - 1 (on a GPU it would stop the queue to look, and reads another row).
    """
    clouds, most = features.shape[:2]
    if len(index) != clouds:
        raise DataError(f"indices of {len(index)} clouds for the features of {clouds}")
    if index.device.type == "cpu" and index.numel():
        low, high = (int(x) for x in index.aminmax())
        if low < 0 or high >= most:
            raise DataError(f"indices from {low} to {high} in clouds of {most} points")
    offset = torch.arange(clouds, device=index.device).view(-1, *[1] * (index.dim() - 1)) * most
    rows = features.flatten(0, 1).index_select(0, (index + offset).flatten())
    return rows.view(*index.shape, features.shape[2])


def interpolate(points: Tensor, features: Tensor, queries: Tensor, k: int = 3, lengths: Tensor | None = None) -> Tensor:
    """[B, M, C]: ``features`` [B, N, C] at ``points`` [B, N, D] carried to ``queries`` [B, M, D] from the ``k`` nearest.

    Weights 1 / max(d^2, 1e-10), normalised: at a point its own value. Of a cloud with fewer than ``k`` points all are used,
    whatever the sizes of the others. Weights are found in float32 at least, and rounded to the type of the features.
    """
    coordinates, sizes = _clouds(points, lengths, "points")
    wanted = _queries(queries, coordinates)
    clouds, most, channels = features.shape
    if features.shape[:2] != points.shape[:2] or k < 1:
        raise DataError(
            f"features of shape {tuple(features.shape)} at points of shape {tuple(points.shape)}, from the {k} nearest; "
            "wanted: features of every point, and at least one neighbour"
        )
    k = min(k, int(sizes.max()))
    index = _search(coordinates, wanted, k, sizes)
    weight = _pair_distances(coordinates, wanted, index).clamp(min=1e-10).reciprocal()
    weight = weight * (torch.arange(k, device=index.device) < sizes[:, None, None])
    weight = (weight / weight.sum(-1, keepdim=True)).to(features.dtype)
    rows = (index + torch.arange(clouds, device=index.device)[:, None, None] * most).flatten(0, 1)
    flat = features.flatten(0, 1)
    out = functional.embedding_bag(rows, flat, per_sample_weights=weight.flatten(0, 1), mode="sum")
    return out.view(*index.shape[:2], channels)


# --------------------------------------------------------------------------------------------------------------- details
@cache
def _numba() -> Any:
    """The compiled operators, imported when they are needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.point_operators_numba")


def _clouds(points: Tensor, lengths: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    """Positions in single precision at least, without gradient, and the sizes of the clouds."""
    if points.dim() != 3 or not points.shape[2]:
        raise DataError(f"{name} of shape {tuple(points.shape)}; [clouds, points, dimensions] is wanted")
    clouds, most = points.shape[:2]
    if lengths is not None and (lengths.shape != (clouds,) or lengths.is_floating_point()):
        raise DataError(f"lengths {lengths.dtype} of shape {tuple(lengths.shape)}; integers [{clouds}] are wanted")
    sizes = torch.full((clouds,), most, device=points.device) if lengths is None else lengths.to(points.device)
    if clouds == 0 or int(sizes.min()) < 1 or int(sizes.max()) > most:
        raise DataError(
            f"clouds of {sizes.tolist()} points in {name} of shape {tuple(points.shape)}; give each at least one"
        )
    coordinates = points.detach().to(torch.promote_types(points.dtype, torch.float32)).contiguous()
    _check_finite(coordinates, name)
    return coordinates, sizes


def _check_finite(coordinates: Tensor, name: str) -> None:
    if coordinates.device.type == "cpu" and not bool(coordinates.isfinite().all()):
        raise DataError(f"{name} hold a coordinate that is not finite; remove or repair the point")


def _queries(queries: Tensor, points: Tensor) -> Tensor:
    if queries.dim() != 3 or len(queries) != len(points) or queries.shape[2] != points.shape[2]:
        raise DataError(f"queries of shape {tuple(queries.shape)} for points of shape {tuple(points.shape)}")
    wanted = queries.detach().to(points.dtype).contiguous()
    _check_finite(wanted, "queries")
    return wanted


def _use_tree(points: Tensor) -> bool:
    return points.device.type == "cpu" and points.shape[1] <= _TREE_DIMENSIONS and len(points) >= _TREE_POINTS


def _use_loops(points: Tensor, queries: Tensor) -> bool:
    few = points.shape[1] <= _TREE_DIMENSIONS and len(points) * len(queries) <= _LOOP_PAIRS
    return few and compiled(points)


def _query_blocks(queries: Tensor, size: int) -> Iterator[slice]:
    rows = max(1, (_BLOCK if queries.device.type == "cpu" else _GPU_BLOCK) // size)
    for start in range(0, len(queries), rows):
        yield slice(start, start + rows)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances between rows, one axis after the other: the same rounding wherever it is computed."""
    total = (a[..., 0] - b[..., 0]).square()
    for axis in range(1, a.shape[-1]):
        total = total + (a[..., axis] - b[..., axis]).square()
    return total


def _squared_distances(queries: Tensor, points: Tensor) -> Tensor:
    """[m, N]. Not through |a|^2 - 2 ab + |b|^2, which loses small distances between points far from the origin."""
    if points.shape[1] <= _TREE_DIMENSIONS:
        return _squared(queries[:, None], points[None])
    return torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist").square()


def _pair_distances(points: Tensor, queries: Tensor, index: Tensor) -> Tensor:
    return _squared(queries[:, :, None], group_points(points, index))


def _nonzero(mask: Tensor) -> Tensor:
    """int64 indices of a mask [N]; NumPy's is several times faster on the CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]
