"""Batch normalisation of sparse features in bfloat16 with what follows it, a shortcut and ReLU, in one pass over the rows each
way, compiled by numba for processors with AVX-512 in bfloat16.

Statistics are those of float32: sums over blocks of rows, these added in double precision, in one order for any number of
threads. What comes out is rounded once, after the ReLU; the gradients of weight and bias are not rounded.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from adlbench.methods.nn.amx_numba import SIDE, Rows, instructions
from adlbench.methods.nn.sparse_numba import share

Floats = NDArray[np.floating]

BLOCK = 1024  # rows whose sum is taken in float32, by four
_FOUR = 4

_intrinsic: Any = intrinsic  # neither decorator has types
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


class BatchNorm(torch.autograd.Function):
    """bfloat16 [N, C]: features, to mean 0 and variance 1 over the rows, times weight plus bias [C], plus ``shortcut`` [N, C] if
    there is one, and rectified if ``rectify``. Also gives mean and (biased) variance, float32 [C]."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, rectify: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        features = features.contiguous()
        added = None if shortcut is None else shortcut.contiguous()
        count, width = features.shape
        out, (mean, variance) = torch.empty_like(features), torch.empty(2, width)
        partial, lines = _buffers(count, width)
        x, part, line = features.data_ptr(), partial.ctypes.data, lines.ctypes.data
        blocks, cost = len(partial), features.numel()
        share(lambda first, last: _add_rows(x, count, width, part, first, last), blocks, cost)
        _finish_mean(partial, count, lines, mean.numpy())
        share(lambda first, last: _add_squares(x, count, width, line, part, first, last), blocks, cost)
        _finish_scale(partial, count, eps, weight.detach().numpy(), bias.detach().numpy(), lines, variance.numpy())
        y, other, jump = out.data_ptr(), line + lines.strides[0] * 3, 0  # a line of zeros for every row
        if added is not None:
            other, jump = added.data_ptr(), 2 * width
        arrays = (x, other, jump, y, count, width, line, 0.0 if rectify else -np.inf)
        share(lambda first, last: _apply(*arrays, first, last), blocks, cost)
        ctx.save_for_backward(features, out, weight)
        ctx.lines, ctx.rectify, ctx.with_shortcut = lines, rectify, shortcut is not None
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        features, out, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        count, width = features.shape
        to_features, (to_weight, to_bias) = torch.empty_like(features), torch.empty(2, width)
        to_shortcut = torch.empty_like(features) if ctx.with_shortcut else to_features  # what passes the ReLU
        partial, lines = torch.zeros(2, *_shape(count, width)).numpy(), ctx.lines
        part, line = partial.ctypes.data, lines.ctypes.data
        blocks, cost = partial.shape[1], features.numel()
        g, y, x = gradient.data_ptr(), out.data_ptr(), features.data_ptr()
        passed, to, floor = to_shortcut.data_ptr(), to_features.data_ptr(), 0.0 if ctx.rectify else -np.inf
        half = partial.strides[0]
        arrays = (g, y, x, passed, count, width, line, floor, part, half)
        share(lambda first, last: _add_gradients(*arrays, first, last), blocks, cost)
        factors = torch.zeros(3, lines.shape[1]).numpy()
        _finish_gradient(partial, count, weight.detach().numpy(), lines, factors, to_weight.numpy(), to_bias.numpy())
        factor = factors.ctypes.data
        share(lambda first, last: _apply_gradient(passed, x, to, count, width, factor, first, last), blocks, cost)
        return to_features, to_weight, to_bias, to_shortcut if ctx.with_shortcut else None, None, None


def _shape(count: int, width: int) -> tuple[int, int, int]:
    return -(-count // BLOCK), _FOUR, -(-width // SIDE) * SIDE


def _buffers(count: int, width: int) -> tuple[Floats, Floats]:
    """Sums by block; mean, scale, shift and zeros by channel, and 1 / deviation."""
    shape = _shape(count, width)
    return torch.zeros(shape).numpy(), torch.zeros(5, shape[2]).numpy()  # torch begins with a cache line


# ----------------------------------------------------------------------------------------------------------------- loops
@_jit
def _add_rows(x: int, count: int, width: int, sums: int, first: int, last: int) -> None:
    wide = -(-width // SIDE) * SIDE * 4
    for block in range(first, last):
        for column in range(0, width, SIDE):
            columns = min(SIDE, width - column)
            for row in range(block * BLOCK, min(block * BLOCK + BLOCK, count)):
                _add_row(
                    x + (row * width + column) * 2, columns, sums + (block * _FOUR + row % _FOUR) * wide + column * 4
                )


@_jit
def _add_squares(x: int, count: int, width: int, mean: int, sums: int, first: int, last: int) -> None:
    wide = -(-width // SIDE) * SIDE * 4
    for block in range(first, last):
        for column in range(0, width, SIDE):
            columns = min(SIDE, width - column)
            for row in range(block * BLOCK, min(block * BLOCK + BLOCK, count)):
                to = sums + (block * _FOUR + row % _FOUR) * wide + column * 4
                _add_square(x + (row * width + column) * 2, columns, mean + column * 4, to)


@_jit
def _total(partial: Floats, channel: int) -> float:
    total = 0.0
    for block in range(partial.shape[0]):
        for part in range(partial.shape[1]):
            total += np.float64(partial[block, part, channel])
    return total


@_jit
def _finish_mean(partial: Floats, count: int, lines: Floats, mean: Floats) -> None:
    for channel in range(len(mean)):
        mean[channel] = lines[0, channel] = _total(partial, channel) / count
    partial[:] = 0


@_jit
def _finish_scale(
    partial: Floats, count: int, eps: float, weight: Floats, bias: Floats, lines: Floats, variance: Floats
) -> None:
    for channel in range(len(weight)):
        square = _total(partial, channel) / count
        variance[channel] = square
        inverse = 1.0 / np.sqrt(square + eps)
        lines[1, channel] = weight[channel] * inverse
        lines[2, channel] = bias[channel] - lines[0, channel] * weight[channel] * inverse
        lines[4, channel] = inverse


@_jit
def _apply(
    x: int, other: int, jump: int, out: int, count: int, width: int, lines: int, floor: float, first: int, last: int
) -> None:
    wide = -(-width // SIDE) * SIDE * 4
    for column in range(0, width, SIDE):
        columns, scale = min(SIDE, width - column), lines + wide + column * 4
        for row in range(first * BLOCK, min(last * BLOCK, count)):
            place = (row * width + column) * 2
            _apply_row(x + place, columns, other + row * jump + column * 2, scale, scale + wide, floor, out + place)


@_jit
def _add_gradients(
    gradient: int, out: int, x: int, passed: int, count: int, width: int, mean: int, floor: float, sums: int, half: int,
    first: int, last: int,
) -> None:  # fmt: skip
    wide = -(-width // SIDE) * SIDE * 4
    for block in range(first, last):
        for column in range(0, width, SIDE):
            columns = min(SIDE, width - column)
            for row in range(block * BLOCK, min(block * BLOCK + BLOCK, count)):
                place = (row * width + column) * 2
                to = sums + (block * _FOUR + row % _FOUR) * wide + column * 4
                centre = mean + column * 4
                _pass_row(
                    gradient + place, columns, out + place, floor, passed + place, x + place, centre, to, to + half
                )


@_jit
def _finish_gradient(
    partial: Floats, count: int, weight: Floats, lines: Floats, factors: Floats, to_weight: Floats, to_bias: Floats
) -> None:
    """The gradient to the features is factors[0] * gradient + factors[1] * features + factors[2]."""
    for channel in range(len(weight)):
        inverse = np.float64(lines[4, channel])
        total, product = _total(partial[0], channel), _total(partial[1], channel) * inverse
        to_weight[channel], to_bias[channel] = product, total
        slope = -weight[channel] * inverse * inverse * product / count
        factors[0, channel], factors[1, channel] = weight[channel] * inverse, slope
        factors[2, channel] = -weight[channel] * inverse * total / count - slope * lines[0, channel]


@_jit
def _apply_gradient(passed: int, x: int, to: int, count: int, width: int, factors: int, first: int, last: int) -> None:
    wide = -(-width // SIDE) * SIDE * 4
    for column in range(0, width, SIDE):
        columns, factor = min(SIDE, width - column), factors + column * 4
        for row in range(first * BLOCK, min(last * BLOCK, count)):
            place = (row * width + column) * 2
            _mix_row(passed + place, columns, x + place, factor, factor + wide, factor + 2 * wide, to + place)


# ---------------------------------------------------------------------------------------------------------- instructions
_FLOAT = ir.FloatType()


def _spread(rows: Rows, value: Any) -> Any:
    kind = ir.VectorType(_FLOAT, SIDE)
    undefined = ir.Constant(kind, ir.Undefined)
    single = rows.builder.insert_element(undefined, rows.builder.fptrunc(value, _FLOAT), ir.IntType(32)(0))
    return rows.shuffle(single, undefined, [0] * SIDE)


@_intrinsic
def _add_row(typing: Any, row: Any, columns: Any, sums: Any) -> Any:
    def write(rows: Rows, row: Any, columns: Any, sums: Any) -> None:
        rows.put(rows.builder.fadd(rows.floats(sums), rows.widened(row, columns)), sums)

    return types.void(*[types.intp] * 3), instructions(write)


@_intrinsic
def _add_square(typing: Any, row: Any, columns: Any, mean: Any, sums: Any) -> Any:
    def write(rows: Rows, row: Any, columns: Any, mean: Any, sums: Any) -> None:
        centred = rows.builder.fsub(rows.widened(row, columns), rows.floats(mean))
        rows.put(rows.builder.fadd(rows.floats(sums), rows.builder.fmul(centred, centred)), sums)

    return types.void(*[types.intp] * 4), instructions(write)


@_intrinsic
def _apply_row(
    typing: Any, row: Any, columns: Any, other: Any, scale: Any, shift: Any, floor: Any, to: Any
) -> Any:  # fmt: skip
    """row * scale + shift + other, at least ``floor``; what is not a number stays so."""

    def write(
        rows: Rows, row: Any, columns: Any, other: Any, scale: Any, shift: Any, floor: Any, to: Any
    ) -> None:  # fmt: skip
        builder = rows.builder
        value = builder.fmul(rows.widened(row, columns), rows.floats(scale))
        value = builder.fadd(builder.fadd(value, rows.floats(shift)), rows.widened(other, columns))
        low = _spread(rows, floor)
        rows.store(rows.rounded(builder.select(builder.fcmp_ordered("<", value, low), low, value)), to, columns)

    return types.void(*[types.intp] * 5, types.float64, types.intp), instructions(write)


@_intrinsic
def _pass_row(
    typing: Any, row: Any, columns: Any, out: Any, floor: Any, to: Any, x: Any, mean: Any, sums: Any, products: Any
) -> Any:  # fmt: skip
    """The row where ``out`` is above ``floor``, else 0; it is added to the sums, and its product with x - mean to the products."""

    def write(
        rows: Rows, row: Any, columns: Any, out: Any, floor: Any, to: Any, x: Any, mean: Any, sums: Any, products: Any
    ) -> None:  # fmt: skip
        builder, halves = rows.builder, rows.halves(row, columns)
        above = builder.fcmp_unordered(">", rows.widened(out, columns), _spread(rows, floor))
        passed = builder.select(above, halves, ir.Constant(halves.type, None))
        value, centred = rows.widen(passed), builder.fsub(rows.widened(x, columns), rows.floats(mean))
        rows.put(builder.fadd(rows.floats(sums), value), sums)
        rows.put(builder.fadd(rows.floats(products), builder.fmul(value, centred)), products)
        rows.store(passed, to, columns)

    return types.void(*[types.intp] * 3, types.float64, *[types.intp] * 5), instructions(write)


@_intrinsic
def _mix_row(typing: Any, row: Any, columns: Any, x: Any, a: Any, b: Any, c: Any, to: Any) -> Any:
    """row * a + x * b + c."""

    def write(rows: Rows, row: Any, columns: Any, x: Any, a: Any, b: Any, c: Any, to: Any) -> None:
        builder = rows.builder
        value = builder.fmul(rows.widened(row, columns), rows.floats(a))
        other = builder.fadd(builder.fmul(rows.widened(x, columns), rows.floats(b)), rows.floats(c))
        rows.store(rows.rounded(builder.fadd(value, other)), to, columns)

    return types.void(*[types.intp] * 7), instructions(write)
