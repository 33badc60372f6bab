"""Kernel maps and pooling of sparse tensors for a CPU, compiled by numba: what ``sparse_coordinates`` does in a dozen passes over
arrays of voxels times taps, in one or two. The results are the same to the bit.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.methods.nn.sparse_tensor import Box

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
Corner = tuple[int, int, int]

PARALLEL = 2**20  # elementary operations from which further threads pay

_jit: Any = numba.njit(nogil=True, cache=True)  # the decorator has no types


# -------------------------------------------------------------------------------------------------------------- threads
def share(work: Callable[[int, int], None], count: int, cost: int) -> None:
    """``work(first, last)`` on parts of ``range(count)``, on as many threads as torch has, if all together is worth it."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1 or cost < PARALLEL:
        work(0, count)
        return
    edges = [count * part // threads for part in range(threads + 1)]
    list(_threads(os.getpid(), threads).map(work, edges[:-1], edges[1:]))


@cache
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Kept by process: a fork has none of its parent's threads."""
    return ThreadPoolExecutor(count)


# ----------------------------------------------------------------------------------------------------------------- maps


def neighbours(inputs: Tensor, outputs: Tensor, box: Box, unit: int, steps: Tensor, batch_size: int) -> Tensor:
    """int32 [M, K]: which of ``inputs`` int64 [N, 4] is at each of ``outputs`` [M, 4] and ``steps`` [K], N where none is.

    Voxels are numbered in ``box``, in units of ``unit``; ``steps`` are differences of those numbers.
    """
    found = np.empty((len(outputs), len(steps)), np.int32)
    table = _empty_cells.take(batch_size * math.prod(box.size))
    _neighbours(inputs.numpy(), outputs.numpy(), box.low, box.size, unit, steps.numpy(), table, found)
    return torch.from_numpy(found)


class _EmptyCells(threading.local):
    """A table without entries that is kept between calls: each takes out what it has put in, which costs less than filling."""

    largest = 2**22  # beyond that it is not kept

    def __init__(self) -> None:
        self.table = np.empty(0, np.int32)

    def take(self, cells: int) -> NDArray[np.int32]:
        if cells > self.largest:
            return np.full(cells, -1, np.int32)
        if cells > len(self.table):
            self.table = np.full(cells, -1, np.int32)
        return self.table


_empty_cells = _EmptyCells()


@_jit
def _number(voxel: Integers, low: Corner, size: Corner, unit: int) -> int:
    x, y, z = voxel[1] // unit - low[0], voxel[2] // unit - low[1], voxel[3] // unit - low[2]
    number: int = ((voxel[0] * size[0] + x) * size[1] + y) * size[2] + z
    return number


@_jit
def _neighbours(
    inputs: Integers, outputs: Integers, low: Corner, size: Corner, unit: int, steps: Integers, table: Integers,
    found: Integers,
) -> None:  # fmt: skip
    for row in range(len(inputs)):
        table[_number(inputs[row], low, size, unit)] = row
    for row in range(len(outputs)):
        number = _number(outputs[row], low, size, unit)
        for tap in range(len(steps)):
            source = table[number + steps[tap]]
            found[row, tap] = source if source >= 0 else len(inputs)
    for row in range(len(inputs)):
        table[_number(inputs[row], low, size, unit)] = -1


def children(inputs: Tensor, outputs: Tensor, box: Box, stride: int, ratio: int, batch_size: int) -> Tensor:
    """int32 [M, ratio^3] as ``neighbours`` for a kernel that is as wide as the strides' ratio, and covers each voxel of
    ``outputs`` [M, 4]: which of ``inputs`` [N, 4] is at each place in it, N where none is. ``box`` counts in outputs."""
    table = np.empty(batch_size * math.prod(box.size), np.int32)  # read where there is an output only
    found = np.full((len(outputs), ratio**3), len(inputs), np.int32)
    _children(inputs.numpy(), outputs.numpy(), box.low, box.size, stride, ratio, table, found)
    return torch.from_numpy(found)


@_jit
def _children(
    inputs: Integers, outputs: Integers, low: Corner, size: Corner, stride: int, ratio: int, table: Integers,
    found: Integers,
) -> None:  # fmt: skip
    for row in range(len(outputs)):
        table[_number(outputs[row], low, size, stride * ratio)] = row
    for row in range(len(inputs)):
        target = table[_number(inputs[row], low, size, stride * ratio)]
        x, y = (inputs[row, 1] - outputs[target, 1]) // stride, (inputs[row, 2] - outputs[target, 2]) // stride
        z = (inputs[row, 3] - outputs[target, 3]) // stride
        found[target, (z * ratio + y) * ratio + x] = row


def coarsen(coordinates: Tensor, box: Box, stride: int, batch_size: int) -> Tensor:
    """int64 [M, 4] in lexicographic order: the voxels of ``stride`` that hold those of ``coordinates`` [N, 4]. ``box`` counts
    in ``stride``."""
    occupied = np.zeros((batch_size, *box.size), np.bool_)
    found = np.empty((_occupy(coordinates.numpy(), box.low, box.size, stride, occupied.reshape(-1)), 4), np.int64)
    _list_occupied(occupied, box.low, stride, found)
    return torch.from_numpy(found)


@_jit
def _occupy(coordinates: Integers, low: Corner, size: Corner, stride: int, occupied: Any) -> int:
    count = 0
    for row in range(len(coordinates)):
        number = _number(coordinates[row], low, size, stride)
        count += not occupied[number]
        occupied[number] = True
    return count


@_jit
def _list_occupied(occupied: Any, low: Corner, stride: int, found: Integers) -> None:
    row = 0
    items, width, depth, height = occupied.shape
    for item in range(items):
        for x in range(width):
            for y in range(depth):
                for z in range(height):
                    if occupied[item, x, y, z]:
                        found[row, 0], found[row, 1] = item, (x + low[0]) * stride
                        found[row, 2], found[row, 3] = (y + low[1]) * stride, (z + low[2]) * stride
                        row += 1


def survey(coordinates: Tensor) -> tuple[list[int], list[int], bool]:
    """Of ``coordinates`` int64 [N, 4] the least and greatest of each column, and whether they are unique and in lexicographic
    order."""
    extremes = np.empty((2, 4), np.int64)
    ordered = _survey(coordinates.numpy(), extremes)
    return *extremes.tolist(), bool(ordered)  # type: ignore[return-value]


@_jit
def _survey(coordinates: Integers, extremes: Integers) -> bool:
    extremes[:] = coordinates[0]
    ordered = True
    for row in range(1, len(coordinates)):
        sign = 0
        for axis in range(4):
            value, before = coordinates[row, axis], coordinates[row - 1, axis]
            extremes[0, axis] = min(extremes[0, axis], value)
            extremes[1, axis] = max(extremes[1, axis], value)
            if sign == 0:
                sign = (value > before) - (value < before)
        ordered = ordered and sign > 0
    return ordered


def count_pairs(table: Tensor, absent: int) -> int:
    return int(_count_pairs(table.numpy(), absent))


@_jit
def _count_pairs(table: Integers, absent: int) -> int:
    total = 0
    for row in range(len(table)):
        for tap in range(table.shape[1]):
            total += table[row, tap] != absent
    return total


def extremes(points: Tensor) -> tuple[list[float], list[float]]:
    """The least and the greatest of each column of ``points`` [N, 3]; not a number if one is."""
    array = points.numpy()
    found = np.empty((2, 3), array.dtype)
    _extremes(array, found)
    low, high = found.tolist()
    return low, high


@_jit
def _extremes(points: Floats, found: Floats) -> None:
    found[:] = points[0]
    for row in range(len(points)):
        for axis in range(3):
            value = points[row, axis]
            found[0, axis] = value if not value >= found[0, axis] else found[0, axis]
            found[1, axis] = value if not value <= found[1, axis] else found[1, axis]
            if not np.isfinite(value):
                found[:] = value
                return


def gather_points(points: Tensor, box: Box, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """``points`` [N, 3] with whole numbers inside ``box``, as many of each item, item after item: the voxels int64 [V, 4] in
    lexicographic order, which of them each point is in [N], and how many each holds [V]."""
    table = np.zeros(batch_size * math.prod(box.size), np.int32)
    inverse = np.empty(len(points), np.int64)
    voxels = _count_points(points.numpy(), box.low, box.size, batch_size, table, inverse)
    coordinates, counts = np.empty((voxels, 4), np.int64), np.empty(voxels, np.int64)
    _list_voxels(table.reshape(batch_size, *box.size), box.low, coordinates, counts)
    _look_up(table, inverse)
    return torch.from_numpy(coordinates), torch.from_numpy(inverse), torch.from_numpy(counts)


@_jit
def _count_points(
    points: Floats, low: Corner, size: Corner, batch_size: int, table: Integers, inverse: Integers
) -> int:  # fmt: skip
    each, voxels = len(points) // batch_size, 0
    for item in range(batch_size):
        for row in range(item * each, (item + 1) * each):
            x, y, z = int(points[row, 0]) - low[0], int(points[row, 1]) - low[1], int(points[row, 2]) - low[2]
            number = ((item * size[0] + x) * size[1] + y) * size[2] + z
            inverse[row] = number
            voxels += table[number] == 0
            table[number] += 1
    return voxels


@_jit
def _list_voxels(table: Integers, low: Corner, coordinates: Integers, counts: Integers) -> None:
    """Puts the voxels' rows in the place of the numbers of points."""
    row = 0
    items, width, depth, height = table.shape
    for item in range(items):
        for x in range(width):
            for y in range(depth):
                for z in range(height):
                    if table[item, x, y, z]:
                        coordinates[row, 0], coordinates[row, 1] = item, x + low[0]
                        coordinates[row, 2], coordinates[row, 3] = y + low[1], z + low[2]
                        counts[row] = table[item, x, y, z]
                        table[item, x, y, z] = row
                        row += 1


@_jit
def _look_up(table: Integers, inverse: Integers) -> None:
    for row in range(len(inverse)):
        inverse[row] = table[inverse[row]]


def turn_round(table: Tensor, num_sources: int) -> Tensor:
    """int32 [num_sources, K] from ``table`` int32 [M, K]: the target that reads each source at each tap, M where none does."""
    turned = np.full((num_sources, table.shape[1]), len(table), np.int32)
    _turn_round(table.numpy(), turned)
    return torch.from_numpy(turned)


@_jit
def _turn_round(table: Integers, turned: Integers) -> None:
    for row in range(len(table)):
        for tap in range(table.shape[1]):
            if table[row, tap] < len(turned):
                turned[table[row, tap], tap] = row


def pairs(table: Tensor, absent: int, centre: int | None) -> tuple[list[int], Tensor, Tensor, Tensor, Tensor]:
    """Of ``table`` [M, K] without the tap ``centre``: how many each tap has, and as in ``Pairs`` the sources, targets, order
    and bounds."""
    sizes = np.zeros(table.shape[1], np.int64)
    bounds = np.zeros(len(table) + 1, np.int32)
    _count(table.numpy(), absent, -1 if centre is None else centre, sizes, bounds)
    sources, targets, order = (np.empty(bounds[-1], np.int32) for _ in range(3))
    _list_pairs(
        table.numpy(), absent, -1 if centre is None else centre, sizes.cumsum() - sizes, sources, targets, order
    )
    found = [torch.from_numpy(x) for x in (sources, targets, order, bounds)]
    return sizes.tolist(), found[0], found[1], found[2], found[3]


@_jit
def _count(table: Integers, absent: int, centre: int, sizes: Integers, bounds: Integers) -> None:
    total = 0
    for row in range(len(table)):
        for tap in range(table.shape[1]):
            if table[row, tap] != absent and tap != centre:
                sizes[tap] += 1
                total += 1
        bounds[row + 1] = total


@_jit
def _list_pairs(
    table: Integers, absent: int, centre: int, place: Integers, sources: Integers, targets: Integers, order: Integers
) -> None:
    done = 0
    for row in range(len(table)):
        for tap in range(table.shape[1]):
            if table[row, tap] != absent and tap != centre:
                sources[place[tap]] = table[row, tap]
                targets[place[tap]] = row
                order[done] = place[tap]
                place[tap] += 1
                done += 1


def max_pool(features: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """[M, C] the largest of the rows of ``features`` [N, C] that ``table`` [M, K] names, 0 where it names none, and int32
    [M, C] the first row that has it, N where there is none."""
    rows = torch.empty(len(table), features.shape[1], dtype=torch.int32)
    largest = features.new_empty(rows.shape)
    _max_pool(features.detach().contiguous().numpy(), table.numpy(), largest.numpy(), rows.numpy())
    return largest, rows


@_jit
def _max_pool(features: Floats, table: Integers, largest: Floats, rows: Integers) -> None:
    absent, channels = features.shape
    for target in range(len(table)):
        largest[target] = -np.inf
        rows[target] = absent
        for source in table[target]:
            if source != absent:
                for channel in range(channels):
                    better = features[source, channel] > largest[target, channel] or rows[target, channel] == absent
                    largest[target, channel] = features[source, channel] if better else largest[target, channel]
                    rows[target, channel] = source if better else rows[target, channel]
        if rows[target, 0] == absent:
            largest[target] = 0


def max_pool_gradient(gradient: Tensor, rows: Tensor, num_sources: int) -> Tensor:
    out = gradient.new_zeros(num_sources, gradient.shape[1])
    _max_pool_gradient(gradient.contiguous().numpy(), rows.numpy(), out.numpy())
    return out


@_jit
def _max_pool_gradient(gradient: Floats, rows: Integers, out: Floats) -> None:
    for target in range(len(rows)):
        for channel in range(rows.shape[1]):
            if rows[target, channel] < len(out):
                out[rows[target, channel], channel] += gradient[target, channel]
