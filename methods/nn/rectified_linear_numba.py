"""Linear layers with ReLU in bfloat16 on a CPU's tile unit: product, bias and ReLU, or all gradients, in one pass over the rows.

Between the products of a small network a CPU otherwise spends most of its time: every ReLU, its gradient, every sum for a bias
and every cast reads and writes all activations once more. Here they happen to a block of rows while it is in the cache.

Rows are dealt out in parts of ``PART``, whose sums are added in order: the result is the same to the bit for any number of
threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.methods.nn.amx_numba import (
    SIDE,
    TILE,
    add_product,
    add_product_to_16,
    begin,
    clear_sums,
    end,
    load_sums,
    pack,
    pair_rows,
    rectify_gradient,
    rectify_row,
    round_row,
    round_to_bfloat16,
    store_sums,
    turn_tile,
)
from adlbench.methods.nn.sparse_numba import share

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Integers = NDArray[np.int64]

PART = 4096  # rows that one thread goes through
BLOCK = 128  # rows that stay in the first cache while all columns are computed
GRADIENT_BLOCK = (
    256  # longer: a block's products are added to the sums for the weight, which are loaded and stored for it
)

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, extra_weight: Tensor, extra_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``rectified_linear``. x bfloat16 [M, K] with K a multiple of 32; bias [G, N]; rows int64 [M], or [0] for zeros."""
    number, depth = x.shape
    out = x.new_empty(number, _rounded(len(weight)))
    extra = torch.empty(number, len(extra_weight))
    packed = _packed(weight.T, depth, len(weight)), _packed(extra_weight.T, depth, len(extra_weight))
    biases = np.zeros((len(bias), out.shape[1]), np.float32)
    biases[:, : len(weight)] = bias.detach().numpy()
    arrays = (_bits(x), *packed, biases, rows.numpy(), extra_bias.detach().numpy(), _bits(out), extra.numpy())
    share(lambda first, last: _forward(*arrays, first, last), -(-number // PART), number * weight.numel())
    return out, extra


def backward(
    x: Tensor, out: Tensor, gradient: Tensor, extra_gradient: Tensor, weight: Tensor, groups: int, rows: Tensor,
    extra_weight: Tensor, wanted: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients to x (None unless it is ``wanted``), weight, bias [groups, N], extra weight and extra bias."""
    number, depth = x.shape
    (width, inputs), extra = weight.shape, len(extra_weight)
    columns, parts = out.shape[1] + _rounded(extra), -(-number // PART)
    packed = np.concatenate([_packed(weight, width, inputs), _packed(extra_weight, extra, inputs)], axis=1)
    sums = np.zeros((parts, depth, columns), np.float32)
    biases = np.zeros((groups, out.shape[1]), np.float32)
    shared = np.zeros((parts, out.shape[1]), np.float32)  # of each part's first group, which may have begun before it
    extra_biases = np.zeros((parts, extra), np.float32)
    to = torch.empty_like(x) if wanted else x.new_empty(0, depth)
    arrays = (
        _bits(x), _bits(out), _bits(gradient), extra_gradient.numpy(), packed, rows.numpy(), sums, biases, shared,
        extra_biases, _bits(to),
    )  # fmt: skip
    share(lambda first, last: _backward(*arrays, first, last), parts, 2 * number * weight.numel())
    for part in range(parts):
        biases[rows[part * PART] if len(rows) else 0] += shared[part]
    total = torch.from_numpy(sums.sum(0).T.copy())
    return (
        to if wanted else None,
        total[:width, :inputs],
        torch.from_numpy(biases[:, :width]),
        total[out.shape[1] : out.shape[1] + extra, :inputs],
        torch.from_numpy(extra_biases.sum(0)),
    )


def widen_rows(x: Tensor) -> Tensor:
    """[M, K] as bfloat16 [M, K rounded up to a multiple of 32], zeros in the other columns."""
    number, depth = x.shape
    if x.dtype == torch.bfloat16 and depth % SIDE == 0:
        return x.contiguous()
    wide = x.new_empty(number, _rounded(depth), dtype=torch.bfloat16)
    wide[:, :depth] = x
    wide[:, depth:] = 0
    return wide


def _rounded(width: int) -> int:
    return -(-width // SIDE) * SIDE


def _bits(x: Tensor) -> Halves:
    return x.detach().view(torch.uint16).numpy()


def _packed(matrix: Tensor, depth: int, width: int) -> Halves:
    packed = np.empty((_rounded(width) // 16, _rounded(depth) // SIDE, 16, SIDE), np.uint16)
    pack(matrix.detach().numpy(), packed)
    return packed


@_jit
def _forward(
    x: Halves, weight: Halves, extra_weight: Halves, biases: Floats, rows: Integers, extra_bias: Floats, out: Halves,
    extra: Floats, first_part: int, last_part: int,
) -> None:  # fmt: skip
    (number, depth), (width, others) = x.shape, (out.shape[1], extra.shape[1])
    steps, panel = depth // SIDE, depth // SIDE * TILE
    sums, rest = np.empty((SIDE, SIDE), np.float32), np.zeros((SIDE, depth), np.uint16)
    to = sums.ctypes.data
    begin()
    for first in range(first_part * PART, min(last_part * PART, number), BLOCK):
        last = min(first + BLOCK, number)
        for column in range(0, width, SIDE):
            right = weight.ctypes.data + column // 16 * panel
            for row in range(first, last, SIDE):
                clear_sums()
                add_product(_left(x, row, rest), 2 * depth, right, panel, steps)
                store_sums(to, 4 * SIDE)
                for each in range(min(SIDE, number - row)):
                    group = rows[row + each] if len(rows) else 0
                    bias = biases.ctypes.data + 4 * (group * width + column)
                    rectify_row(to + 4 * SIDE * each, bias, out.ctypes.data + 2 * ((row + each) * width + column))
        for column in range(0, others, 16):
            right = extra_weight.ctypes.data + column // 16 * panel
            for row in range(first, last, SIDE):
                clear_sums()
                add_product_to_16(_left(x, row, rest), 2 * depth, right, steps)
                store_sums(to, 4 * SIDE)
                for each in range(min(SIDE, number - row)):
                    for other in range(column, min(column + 16, others)):
                        extra[row + each, other] = sums[each, other - column] + extra_bias[other]
    end()


@_jit
def _left(x: Halves, row: int, rest: Halves) -> int:
    """The address of 32 rows from ``row`` on; where there are less, they are copied to ``rest``, which has zeros."""
    if row + SIDE <= len(x):
        return x.ctypes.data + 2 * row * x.shape[1]
    rest[: len(x) - row] = x[row:]
    return rest.ctypes.data


@_jit
def _backward(
    x: Halves, out: Halves, gradient: Halves, extra_gradient: Floats, weight: Halves, rows: Integers, sums: Floats,
    biases: Floats, shared: Floats, extra_biases: Floats, to: Halves, first_part: int, last_part: int,
) -> None:  # fmt: skip
    number, depth = x.shape
    width, others, columns = out.shape[1], extra_gradient.shape[1], sums.shape[2]
    block, steps = GRADIENT_BLOCK, GRADIENT_BLOCK // SIDE
    passed = np.zeros((block, columns), np.uint16)  # the gradient through ReLU, and that of what has none
    pairs = np.empty((columns // 16, steps, 16, SIDE), np.uint16)  # the same as a right operand
    turned = np.empty((depth, block), np.uint16)  # x as a left operand
    rest = np.zeros((SIDE, depth), np.uint16)
    tiles = np.empty((depth // 16, 16, SIDE), np.uint16)
    block_sums = np.empty((SIDE, SIDE), np.float32)
    begin()
    for part in range(first_part, last_part):
        begins, ends = part * PART, min((part + 1) * PART, number)
        first_group = rows[begins] if len(rows) else 0
        for first in range(begins, ends, block):
            count = min(block, ends - first)
            for each in range(count):
                row = first + each
                group = rows[row] if len(rows) else 0
                total = shared.ctypes.data + 4 * part * width
                if group != first_group:
                    total = biases.ctypes.data + 4 * group * width
                start, result = 2 * row * width, passed.ctypes.data + 2 * each * columns
                for column in range(0, width, SIDE):
                    rectify_gradient(
                        gradient.ctypes.data + start + 2 * column, out.ctypes.data + start + 2 * column, total + 4 * column,
                        result + 2 * column,
                    )  # fmt: skip
                for other in range(others):
                    passed[each, width + other] = round_to_bfloat16(extra_gradient[row, other])
                    extra_biases[part, other] += extra_gradient[row, other]
            passed[count:] = 0
            for step in range(steps):
                left = rest.ctypes.data
                if step * SIDE < count:
                    left = _left(x, first + step * SIDE, rest)
                for pair in range(16):
                    row = step * SIDE + 2 * pair
                    for column in range(0, columns, SIDE):
                        place = passed.ctypes.data + 2 * (row * columns + column)
                        tile = pairs.ctypes.data + ((column // 16) * steps + step) * TILE + 64 * pair
                        pair_rows(place, place + 2 * columns, tile, tile + steps * TILE)
                    for column in range(0, depth, SIDE):
                        place = left + 2 * (2 * pair * depth + column)
                        tile = tiles.ctypes.data + column // 16 * TILE + 64 * pair
                        pair_rows(place, place + 2 * depth, tile, tile + TILE)
                for tile in range(depth // 16):
                    place = turned.ctypes.data + 2 * (tile * 16 * block + step * SIDE)
                    turn_tile(tiles.ctypes.data + tile * TILE, place, 2 * block)
            for row in range(0, depth, SIDE):
                for column in range(0, columns, SIDE):
                    place = sums.ctypes.data + 4 * ((part * depth + row) * columns + column)
                    load_sums(place, 4 * columns)
                    right = pairs.ctypes.data + column // 16 * steps * TILE
                    add_product(turned.ctypes.data + 2 * row * block, 2 * block, right, steps * TILE, steps)
                    store_sums(place, 4 * columns)
            if not len(to):
                continue
            panel = columns // SIDE * TILE
            for column in range(0, depth, SIDE):
                right = weight.ctypes.data + column // 16 * panel
                for row in range(0, count, SIDE):
                    clear_sums()
                    add_product(passed.ctypes.data + 2 * row * columns, 2 * columns, right, panel, columns // SIDE)
                    store_sums(block_sums.ctypes.data, 4 * SIDE)
                    for each in range(min(SIDE, count - row)):
                        place = to.ctypes.data + 2 * ((first + row + each) * depth + column)
                        round_row(block_sums.ctypes.data + 4 * SIDE * each, place)
    end()
