"""The products of sparse convolutions in bfloat16 on a CPU's tile unit, compiled by numba: see ``amx_numba``.

The pairs are those of ``sparse_product_numba``, by block of targets and tap. The rows of 32 pairs are copied side by side,
into a buffer that stays in the nearest cache, and meet the matrix of their tap there, all its columns one after the other;
the sums are added to the block's rows in float32, which are rounded once, when all taps are done. For the gradient of the
kernel the sums are over pairs: the copied rows of features are turned round and those of the gradient packed, some hundred
pairs at a time, and the sums are float32 to the end.

So each result is that of exact products of numbers in bfloat16, summed in float32 in one fixed order, the same to the bit for
any number of threads. Numbers below 2^-126 count as zero, in what comes in and in what goes out.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from adlbench.methods.nn import amx_numba as amx
from adlbench.methods.nn.sparse_numba import share
from adlbench.methods.nn.sparse_product_numba import BLOCK, Integers, Runs

SIDE, TILE = amx.SIDE, amx.TILE
CHUNK = 256  # pairs whose rows are turned round and packed together
SPEED = 8  # how many times as much is done in a second as in float32

_intrinsic: Any = intrinsic  # neither decorator has types
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


# ------------------------------------------------------------------------------------------------------------- products
def multiply(values: Tensor, kernel: Tensor, runs: Runs, *, transposed: bool = False) -> Tensor:
    """bfloat16 [T, B]: for each target the sum over its pairs of ``values`` bfloat16 [S, A] at the source times ``kernel``
    [K, A, B], or [K, B, A] if ``transposed``, rounded to bfloat16."""
    depth, width = values.shape[1], kernel.shape[1 if transposed else 2]
    values, packed = values.contiguous(), _pack(kernel, depth, width, transposed=transposed)
    whole = runs.once or runs.apart  # all rows are written
    out = (values.new_empty if whole else values.new_zeros)((runs.num_targets, width))
    pairs = runs.sources, runs.targets, runs.starts, runs.taps
    arrays = (values.data_ptr(), depth, packed, width, *pairs, out.data_ptr(), len(out), BLOCK)
    cost = len(runs.sources) * depth * width // SPEED
    add = runs.apart and not runs.once
    share(lambda first, last: _multiply(*arrays, add, first, last), len(runs.starts), cost)
    return out


def kernel_gradient(features: Tensor, gradient: Tensor, kernel: Tensor, runs: Runs) -> Tensor:
    """float32 [K, A, B]: for each tap the sum over its pairs of the outer products of ``features`` [S, A] and ``gradient``
    [T, B], both bfloat16."""
    features, gradient = features.contiguous(), gradient.contiguous()
    sums = torch.zeros(kernel.shape)
    pairs = runs.sources, runs.targets, runs.starts, runs.taps
    arrays = (features.data_ptr(), features.shape[1], gradient.data_ptr(), gradient.shape[1], *pairs, sums.data_ptr())
    cost = len(runs.sources) * kernel[0].numel() // SPEED
    share(lambda first, last: _sum_outer_products(*arrays, CHUNK, first, last), len(runs.taps), cost)
    return sums


def _pack(kernel: Tensor, depth: int, width: int, *, transposed: bool) -> Integers:
    """The matrices of all taps as right operands, as ``amx.pack`` lays them out."""
    tiles = 2 * -(-width // SIDE), -(-depth // SIDE)
    packed = torch.empty(len(kernel), *tiles, TILE // 2, dtype=torch.int16).numpy()  # torch begins with a cache line
    kernel = kernel.detach().float().contiguous()
    (_pack_turned if transposed else _pack_straight)(kernel.data_ptr(), len(kernel), depth, width, packed)
    return packed


@_jit
def _aligned(size: int) -> Any:
    """Bytes, and the address of the first of ``size`` that begin with a cache line."""
    memory = np.empty(size + 64, np.uint8)
    return memory, (memory.ctypes.data + 63) // 64 * 64


@_jit
def _pack_straight(matrix: int, taps: int, depth: int, width: int, packed: Integers) -> None:
    steps, column_of_tiles = packed.shape[2], packed.shape[2] * TILE
    memory, rows = _aligned(2 * 64)
    for tap in range(taps):
        to = packed[tap].ctypes.data
        for column in range(0, width, SIDE):
            for row in range(0, SIDE * steps, 2):
                for half in range(2):
                    count = min(width - column, SIDE) if row + half < depth else 0
                    _round_from(matrix + ((tap * depth + row + half) * width + column) * 4, count, rows + 64 * half)
                place = to + column // 16 * column_of_tiles + row * 32
                _interleave(rows, SIDE, rows + 64, SIDE, place, place + column_of_tiles)
    memory[0] = 0  # is alive to here


@_jit
def _pack_turned(matrix: int, taps: int, depth: int, width: int, packed: Integers) -> None:
    steps = packed.shape[2]
    memory, rows = _aligned(TILE)
    for tap in range(taps):
        for panel in range(packed.shape[1]):
            for step in range(steps):
                for row in range(16):
                    n, k = 16 * panel + row, SIDE * step
                    count = min(depth - k, SIDE) if n < width else 0
                    _round_from(matrix + ((tap * width + n) * depth + k) * 4, count, rows + 64 * row)
                amx.turn_tile(rows, 64, packed[tap, panel, step].ctypes.data, 64)
    memory[0] = 0


@_jit
def _multiply(
    values: int, depth: int, packed: Integers, width: int, sources: Integers, targets: Integers, starts: Integers,
    taps: Integers, out: int, num_targets: int, block_size: int, add: bool, first: int, last: int,
) -> None:  # fmt: skip
    """``add`` says that a target may be in several pairs, all of its own block; else it is in one at most."""
    steps, panel = packed.shape[2], packed.shape[2] * TILE
    wide = -(-width // SIDE) * SIDE * 4
    memory, total = _aligned(block_size * wide if add else 64)
    more, gathered = _aligned(SIDE * 64 * steps + 4 * TILE)
    sums = gathered + SIDE * 64 * steps
    amx.begin()
    for block in range(first, last):
        row, rows = block * block_size, min(block_size, num_targets - block * block_size)
        if add:
            memory[total - memory.ctypes.data : total - memory.ctypes.data + rows * wide] = 0
        for run in range(len(taps)):
            matrix, end = packed[taps[run]].ctypes.data, starts[block, run + 1]
            for pair in range(starts[block, run], end, SIDE):
                count = min(SIDE, end - pair)
                for step in range(steps):
                    columns = min(SIDE, depth - SIDE * step)
                    for place in range(count):
                        source = values + (sources[pair + place] * depth + SIDE * step) * 2
                        _copy(source, columns, gathered + 64 * (place * steps + step))
                for column in range(0, width, SIDE):
                    amx.clear_sums()
                    right = matrix + column // 16 * panel
                    whole = width - column > 16
                    if whole:
                        amx.add_product(gathered, 64 * steps, right, panel, steps)
                        amx.store_sums(sums, 128)
                    else:
                        amx.add_product_to_16(gathered, 64 * steps, right, steps)
                        amx.store_sums_of_16(sums, 128)
                    if add:
                        to = total + 4 * column
                        if whole:
                            for place in range(count):
                                _add(sums + 128 * place, to + (targets[pair + place] - row) * wide)
                        else:
                            for place in range(count):
                                _add_16(sums + 128 * place, to + (targets[pair + place] - row) * wide)
                    else:
                        columns = min(SIDE, width - column)
                        for place in range(count):
                            to = out + (targets[pair + place] * width + column) * 2
                            _round_to(sums + 128 * place, columns, to)
        if add:
            for column in range(0, width, SIDE):
                columns = min(SIDE, width - column)
                for place in range(rows):
                    _round_to(total + place * wide + 4 * column, columns, out + ((row + place) * width + column) * 2)
    amx.end()
    memory[0] = more[0] = 0


@_jit
def _sum_outer_products(
    features: int, height: int, gradient: int, width: int, sources: Integers, targets: Integers, starts: Integers,
    taps: Integers, sums: int, chunk: int, first: int, last: int,
) -> None:  # fmt: skip
    down, across = -(-height // SIDE), -(-width // SIDE)
    size, single = down * across * 4 * TILE, len(starts) == 1
    memory, total = _aligned(size if single else (last - first) * size)
    begun = np.zeros(last - first, np.bool_)
    panel = chunk // SIDE * TILE
    more, left = _aligned(2 * panel * (down + across) + 2 * TILE)
    right, packed = left + 2 * panel * down, left + 2 * panel * (down + across)
    amx.begin()
    for block in range(len(starts)):
        for run in range(first, last):
            mine, end = total if single else total + (run - first) * size, starts[block, run + 1]
            for pair in range(starts[block, run], end, chunk):
                count = min(chunk, end - pair)
                steps = -(-count // SIDE)
                for column in range(0, height, SIDE):
                    to = left + column * chunk * 2
                    for step in range(steps):
                        place = SIDE * step
                        rows = min(SIDE, count - place)
                        _pack_rows(features, height, column, sources, pair + place, rows, packed, TILE)
                        amx.turn_tile(packed, 64, to + 64 * step, chunk * 2)
                        if height - column > 16:
                            amx.turn_tile(packed + TILE, 64, to + 16 * chunk * 2 + 64 * step, chunk * 2)
                for column in range(0, width, SIDE):
                    _pack_rows(gradient, width, column, targets, pair, count, right + column // 16 * panel, panel)
                for i in range(down):
                    for j in range(across):
                        place = mine + (i * across + j) * 4 * TILE
                        one, other = left + i * SIDE * chunk * 2, right + 2 * j * panel
                        if begun[run - first]:
                            amx.load_sums(place, 128)
                        else:
                            amx.clear_sums()
                        if width - SIDE * j <= 16:
                            amx.add_product_to_16(one, chunk * 2, other, steps)
                        elif height - SIDE * i <= 16:
                            amx.add_product_of_16(one, chunk * 2, other, panel, steps)
                        else:
                            amx.add_product(one, chunk * 2, other, panel, steps)
                        amx.store_sums(place, 128)
                begun[run - first] = True
            if block == len(starts) - 1 and begun[run - first]:
                for row in range(height):
                    for column in range(0, width, SIDE):
                        place = mine + (row // SIDE * across + column // SIDE) * 4 * TILE + row % SIDE * 128
                        to = sums + ((taps[run] * height + row) * width + column) * 4
                        _copy_floats(place, min(SIDE, width - column), to)
    amx.end()
    memory[0] = more[0] = 0  # are alive to here


@_jit
def _pack_rows(
    values: int, width: int, column: int, rows: Integers, pair: int, count: int, to: int, panel: int
) -> None:  # fmt: skip
    """32 columns of ``count`` rows, as two panels of a right operand, with rows of zeros up to a multiple of 32."""
    columns, values = min(SIDE, width - column), values + 2 * column
    even = count // 2 * 2
    for place in range(0, even, 2):
        a, b = values + rows[pair + place] * width * 2, values + rows[pair + place + 1] * width * 2
        _interleave(a, columns, b, columns, to + 32 * place, to + panel + 32 * place)
    for place in range(even, -(-count // SIDE) * SIDE, 2):
        a = values + rows[pair + count - 1] * width * 2
        _interleave(a, columns if place < count else 0, a, 0, to + 32 * place, to + panel + 32 * place)


# ---------------------------------------------------------------------------------------------------------- instructions
@_intrinsic
def _copy(typing: Any, row: Any, columns: Any, to: Any) -> Any:
    """bfloat16, with zeros up to 32."""

    def write(rows: amx.Rows, row: Any, columns: Any, to: Any) -> None:
        rows.put(rows.halves(row, columns), to)

    return types.void(*[types.intp] * 3), amx.instructions(write)


@_intrinsic
def _round_from(typing: Any, row: Any, columns: Any, to: Any) -> Any:
    """From float32 to bfloat16, with zeros up to 32."""

    def write(rows: amx.Rows, row: Any, columns: Any, to: Any) -> None:
        rows.put(rows.rounded(rows.load(row, columns, amx.FLOATS)), to)

    return types.void(*[types.intp] * 3), amx.instructions(write)


@_intrinsic
def _round_to(typing: Any, row: Any, columns: Any, to: Any) -> Any:
    """From 32 float32 to ``columns`` bfloat16."""

    def write(rows: amx.Rows, row: Any, columns: Any, to: Any) -> None:
        floats = rows.floats(row)
        rows.store(rows.rounded(floats), to, columns)

    return types.void(*[types.intp] * 3), amx.instructions(write)


@_intrinsic
def _copy_floats(typing: Any, row: Any, columns: Any, to: Any) -> Any:
    """From 32 float32 to ``columns``."""

    def write(rows: amx.Rows, row: Any, columns: Any, to: Any) -> None:
        rows.store(rows.floats(row), to, columns)

    return types.void(*[types.intp] * 3), amx.instructions(write)


@_intrinsic
def _add_16(typing: Any, row: Any, to: Any) -> Any:
    """16 float32 to 16 others."""

    def write(rows: amx.Rows, row: Any, to: Any) -> None:
        kind = ir.VectorType(ir.FloatType(), 16)
        one, other = (rows.builder.load(rows.pointer(each, kind), align=4) for each in (row, to))
        rows.builder.store(rows.builder.fadd(one, other), rows.pointer(to, kind), align=4)

    return types.void(types.intp, types.intp), amx.instructions(write)


@_intrinsic
def _add(typing: Any, row: Any, to: Any) -> Any:
    """32 float32 to 32 others."""

    def write(rows: amx.Rows, row: Any, to: Any) -> None:
        one, other = rows.floats(row), rows.floats(to)
        rows.builder.store(rows.builder.fadd(one, other), rows.pointer(to, amx.FLOATS), align=4)

    return types.void(types.intp, types.intp), amx.instructions(write)


@_intrinsic
def _interleave(typing: Any, a: Any, columns_a: Any, b: Any, columns_b: Any, low: Any, high: Any) -> Any:
    """Two rows of bfloat16, number by number: the first 16 of each to ``low``, the others to ``high``."""

    def write(rows: amx.Rows, a: Any, columns_a: Any, b: Any, columns_b: Any, low: Any, high: Any) -> None:
        for pairs, to in zip(
            rows.pairs(rows.halves(a, columns_a), rows.halves(b, columns_b)), (low, high), strict=True
        ):
            rows.put(pairs, to)

    return types.void(*[types.intp] * 6), amx.instructions(write)
