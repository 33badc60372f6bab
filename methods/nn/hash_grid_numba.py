"""The hash grid of ``feature_grids`` for a CPU, compiled by numba: level by level, so that a level's table stays in the cache,
and without the lists of corners and weights that plain torch needs. The rules are those of ``feature_grids.HashGrid``.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")  # the decorator has no types
_inline: Any = numba.njit(nogil=True, cache=True, inline="always")


def read(points: Tensor, table: Tensor, scales: list[float], resolutions: list[int], sizes: list[int]) -> Tensor:
    """[M, levels * F] from ``points`` [M, 3] in [0, 1] and ``table`` [sum of sizes, F], both of one type."""
    features: Tensor = _Read.apply(points, table, scales, np.array([resolutions, sizes]))
    return features


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, scales: list[float], levels: Integers) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.scales, ctx.levels = scales, levels
        out = points.new_empty(len(points), len(scales) * table.shape[1])
        where, values = points.detach().contiguous().numpy(), table.detach().contiguous().numpy()
        _read(where, values, np.array(scales, where.dtype), levels, out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        points, table = ctx.saved_tensors
        where, values = points.detach().contiguous().numpy(), table.detach().contiguous().numpy()
        scales, pull = np.array(ctx.scales, where.dtype), gradient.contiguous().numpy()
        to_points = to_table = None
        if ctx.needs_input_grad[0]:
            to_points = torch.zeros_like(points)
            _points_gradient(where, values, scales, ctx.levels, pull, to_points.numpy())
        if ctx.needs_input_grad[1]:
            to_table = torch.zeros_like(table)
            _table_gradient(where, scales, ctx.levels, pull, to_table.numpy())
        return to_points, to_table, None, None


@_inline
def _place(x: int, y: int, z: int, resolution: int, size: int) -> int:
    if resolution * resolution * resolution <= size:
        index = x + y * resolution + z * resolution * resolution
        return index if 0 <= index < size else index % size
    index = (x ^ (y * 2654435761) ^ (z * 805459861)) & 0xFFFFFFFF
    return index & (size - 1) if size & (size - 1) == 0 else index % size


@_jit
def _read(points: Floats, table: Floats, scales: Floats, levels: Integers, out: Floats) -> None:
    features, one, half = table.shape[1], points.dtype.type(1), points.dtype.type(0.5)
    start = 0
    for level in range(len(scales)):
        resolution, size = levels[0, level], levels[1, level]
        for row in range(len(points)):
            x, y, z = (
                points[row, 0] * scales[level] + half,
                points[row, 1] * scales[level] + half,
                points[row, 2] * scales[level] + half,
            )
            i, j, k = math.floor(x), math.floor(y), math.floor(z)
            x, y, z = x - i, y - j, z - k
            for feature in range(features):
                out[row, level * features + feature] = 0
            for corner in range(8):
                a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
                weight = (x if a else one - x) * (y if b else one - y) * (z if c else one - z)
                index = start + _place(i + a, j + b, k + c, resolution, size)
                for feature in range(features):
                    out[row, level * features + feature] += weight * table[index, feature]
        start += size


@_jit
def _table_gradient(points: Floats, scales: Floats, levels: Integers, pull: Floats, to_table: Floats) -> None:
    features, one, half = to_table.shape[1], points.dtype.type(1), points.dtype.type(0.5)
    start = 0
    for level in range(len(scales)):
        resolution, size = levels[0, level], levels[1, level]
        for row in range(len(points)):
            x, y, z = (
                points[row, 0] * scales[level] + half,
                points[row, 1] * scales[level] + half,
                points[row, 2] * scales[level] + half,
            )
            i, j, k = math.floor(x), math.floor(y), math.floor(z)
            x, y, z = x - i, y - j, z - k
            for corner in range(8):
                a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
                weight = (x if a else one - x) * (y if b else one - y) * (z if c else one - z)
                index = start + _place(i + a, j + b, k + c, resolution, size)
                for feature in range(features):
                    to_table[index, feature] += weight * pull[row, level * features + feature]
        start += size


@_jit
def _points_gradient(
    points: Floats, table: Floats, scales: Floats, levels: Integers, pull: Floats, to_points: Floats
) -> None:
    features, one, half = table.shape[1], points.dtype.type(1), points.dtype.type(0.5)
    start = 0
    for level in range(len(scales)):
        resolution, size = levels[0, level], levels[1, level]
        for row in range(len(points)):
            x, y, z = (
                points[row, 0] * scales[level] + half,
                points[row, 1] * scales[level] + half,
                points[row, 2] * scales[level] + half,
            )
            i, j, k = math.floor(x), math.floor(y), math.floor(z)
            x, y, z = x - i, y - j, z - k
            for corner in range(8):
                a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
                along_x, along_y, along_z = (x if a else one - x), (y if b else one - y), (z if c else one - z)
                index = start + _place(i + a, j + b, k + c, resolution, size)
                value = points.dtype.type(0)
                for feature in range(features):
                    value += table[index, feature] * pull[row, level * features + feature]
                value *= scales[level]
                to_points[row, 0] += value * along_y * along_z * (one if a else -one)
                to_points[row, 1] += value * along_x * along_z * (one if b else -one)
                to_points[row, 2] += value * along_x * along_y * (one if c else -one)
        start += size
