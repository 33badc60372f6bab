"""The layers of ``fused_mlp`` in bfloat16 on a CPU's tile unit: all of them, or all gradients, block of rows by block of rows.

Between the products of a small network a CPU otherwise spends most of its time: every ReLU, its gradient, every sum for a bias
and every cast reads and writes all activations once more. Here they happen to a block of rows while it is in the cache.

Rows are dealt out in parts of ``PART``, whose sums are added in order: the result is the same to the bit for any number of
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    copy_row,
    end,
    load_sums,
    pack,
    pack_turned,
    pair_rows,
    rectify_gradient,
    rectify_row,
    round_padded,
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
BLOCK = 128  # rows that stay in the first cache while all columns of a layer are computed
GRADIENT_BLOCK = (
    256  # longer: a block's products are added to the sums for the weights, which are loaded and stored for it
)

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")

# What the compiled loops know of a layer. Widths are rounded up to multiples of 32, offsets are in elements.
FIELDS = 9
DEPTH, WIDTH, EXTRA, COLUMN, SOURCE, OUT, WEIGHT, BIAS, JOINED = range(FIELDS)


class Parameters(NamedTuple):
    """Of a layer, as ``fused_mlp.Layer`` has them, without what is absent."""

    weight: Tensor  # [N, K]
    bias: Tensor  # [G, N]
    extra_weight: Tensor  # [E, K]
    extra_bias: Tensor  # [E]


@dataclass(frozen=True)
class Plan:
    """Where what belongs to each layer is in arrays that all share."""

    table: Integers  # [L, FIELDS]: input and output width; number and first column of what has no ReLU; where the input, what
    # comes out, the weights and the biases (-1 - place for biases by row) begin; columns of x that join the input
    activations: int  # elements in all
    weights: int
    biases: int
    extras: int

    @classmethod
    def of(cls, x: Tensor, layers: Sequence[Parameters], joins: Sequence[bool]) -> Plan:
        number, depth = x.shape
        table = np.zeros((len(layers), FIELDS), np.int64)
        source, activations, weights, biases, extras, before = -1, 0, 0, 0, 0, 0
        for row, (weight, bias, _, extra_bias), joined in zip(table, layers, joins, strict=True):
            width, extra = _rounded(len(weight)), len(extra_bias)
            if joined:
                depth, source = _rounded(weight.shape[1]), activations
                activations += number * depth
            place = -1 - biases if len(bias) > 1 else biases
            row[:] = (
                depth,
                width,
                extra,
                extras,
                source,
                activations,
                weights,
                place,
                (weight.shape[1] - before) * joined,
            )
            source, before = activations, len(weight)
            activations += number * width
            weights += (width + _rounded(extra)) * depth
            biases += len(bias) * width
            extras += extra
            depth = width
        return cls(table, activations, weights, biases, extras)


def forward(
    x: Tensor, rows: Tensor, layers: Sequence[Parameters], joins: Sequence[bool]
) -> tuple[Plan, Tensor, Tensor, Tensor]:
    """The plan, activations (the last layer's at the end), what has no ReLU [M, E], rounded weights. x is ``widen_rows``'."""
    plan = Plan.of(x, layers, joins)
    activations, extras = x.new_empty(plan.activations), torch.empty(len(x), plan.extras)
    rounded, packed = x.new_empty(plan.weights), np.empty(plan.weights, np.uint16)
    biases, extra_biases = np.zeros(plan.biases, np.float32), np.empty(plan.extras, np.float32)
    for row, layer in zip(plan.table, layers, strict=True):
        weight, bias, extra_weight, extra_bias = (each.detach().numpy() for each in layer)
        _prepare(weight, extra_weight, row, _bits(rounded), packed)
        _bias_of(row, biases, len(bias))[:, : len(weight)] = bias
        extra_biases[row[COLUMN] : row[COLUMN] + row[EXTRA]] = extra_bias
    arrays = (_bits(x), plan.table, packed, biases, rows.numpy(), extra_biases, _bits(activations), extras.numpy())
    share(lambda first, last: _forward(*arrays, first, last), -(-len(x) // PART), len(x) * plan.weights)
    return plan, activations, extras, rounded


def backward(
    x: Tensor, rows: Tensor, shapes: Sequence[tuple[int, int, int]], plan: Plan, activations: Tensor, rounded: Tensor,
    gradient: Tensor, extra_gradient: Tensor, wanted: bool,
) -> tuple[Tensor | None, list[Tensor]]:  # fmt: skip
    """Gradients to x (None unless it is ``wanted``), and to weight, bias, extra weight and extra bias of every layer, whose
    ``shapes`` are (N, K, G)."""
    parts = -(-len(x) // PART)
    sums, packed = np.zeros((max(parts, 1), plan.weights), np.float32), np.empty(plan.weights, np.uint16)
    for row in plan.table:
        _pack_rows(row, _bits(rounded), packed)
    biases = np.zeros(plan.biases, np.float32)
    shared = np.zeros((parts, plan.table[:, WIDTH].sum()), np.float32)  # of each part's first rows
    to = torch.empty_like(x) if wanted else x.new_empty(0, x.shape[1])
    arrays = (
        _bits(x), plan.table, packed, rows.numpy(), _bits(activations), _bits(gradient), extra_gradient.numpy(), sums, biases,
        shared, _bits(to),
    )  # fmt: skip
    share(lambda first, last: _backward(*arrays, first, last), parts, 2 * len(x) * plan.weights)
    total = torch.from_numpy(sums[0] if parts == 1 else sums.sum(0))
    to_extra_bias = extra_gradient.sum(0)
    gradients, at = [], 0
    for row, (width, inputs, groups) in zip(plan.table, shapes, strict=True):
        columns, extra = int(row[WIDTH]), int(row[EXTRA])
        to_bias = _bias_of(row, biases, groups)
        for part in range(parts):
            to_bias[rows[part * PART] if groups > 1 else 0] += shared[part, at : at + columns]
        at += columns
        of_weights = total[row[WEIGHT] :][: (columns + _rounded(extra)) * row[DEPTH]].view(-1, row[DEPTH])
        gradients += [
            of_weights[:width, :inputs],
            torch.from_numpy(to_bias)[:, :width],
            of_weights[columns : columns + extra, :inputs],
            to_extra_bias[row[COLUMN] : row[COLUMN] + extra],
        ]
    return (to if wanted else None), gradients


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


def _bias_of(row: Integers, biases: Floats, groups: int) -> Floats:
    """[groups, width] of a layer."""
    place = int(row[BIAS]) if row[BIAS] >= 0 else -1 - int(row[BIAS])
    return biases[place : place + groups * row[WIDTH]].reshape(groups, row[WIDTH])


# ----------------------------------------------------------------------------------------------------------------- weights
@_jit
def _prepare(weight: Floats, extra_weight: Floats, layer: Integers, rounded: Halves, packed: Halves) -> None:
    """The layer's place in ``rounded``: the weights, the others behind; in ``packed``: the right operand with these columns."""
    depth, width, place = layer[DEPTH], layer[WIDTH], layer[WEIGHT]
    high = width + -(-layer[EXTRA] // SIDE) * SIDE
    own = rounded[place : place + high * depth].reshape(high, depth)
    round_padded(weight, own[:width])
    round_padded(extra_weight, own[width:])
    pack_turned(own, packed[place : place + high * depth].reshape(high // 16, depth // SIDE, 16, SIDE))


@_jit
def _pack_rows(layer: Integers, rounded: Halves, packed: Halves) -> None:
    """The right operand that has the layer's weights as rows."""
    depth, place = layer[DEPTH], layer[WEIGHT]
    high = layer[WIDTH] + -(-layer[EXTRA] // SIDE) * SIDE
    own = rounded[place : place + high * depth].reshape(high, depth)
    pack(own, packed[place : place + high * depth].reshape(depth // 16, high // SIDE, 16, SIDE))


# -------------------------------------------------------------------------------------------------------------- the loops
@_jit
def _forward(
    x: Halves, table: Integers, packed: Halves, biases: Floats, rows: Integers, extra_biases: Floats, activations: Halves,
    extras: Floats, first_part: int, last_part: int,
) -> None:  # fmt: skip
    number = len(x)
    sums = np.empty((SIDE, SIDE), np.float32)
    rest = np.zeros(SIDE * max(x.shape[1], table[:, DEPTH].max()), np.uint16)
    to = sums.ctypes.data
    begin()
    for first in range(first_part * PART, min(last_part * PART, number), BLOCK):
        last = min(first + BLOCK, number)
        for place in range(len(table)):
            layer = table[place]
            depth, width, steps = layer[DEPTH], layer[WIDTH], layer[DEPTH] // SIDE
            if layer[JOINED] > 0:
                _join(x, table, place, activations, first, last)
            source = x.ctypes.data if layer[SOURCE] < 0 else activations.ctypes.data + 2 * layer[SOURCE]
            bias, grouped = layer[BIAS], layer[BIAS] < 0
            if grouped:
                bias = -1 - bias
            out, weights, panel = layer[OUT], packed.ctypes.data + 2 * layer[WEIGHT], steps * TILE
            for column in range(0, width, SIDE):
                right = weights + column // 16 * panel
                for row in range(first, last, SIDE):
                    clear_sums()
                    add_product(_left(source, row, number, depth, rest), 2 * depth, right, panel, steps)
                    store_sums(to, 4 * SIDE)
                    for each in range(min(SIDE, number - row)):
                        group = rows[row + each] if grouped else 0
                        added = biases.ctypes.data + 4 * (bias + group * width + column)
                        result = activations.ctypes.data + 2 * (out + (row + each) * width + column)
                        rectify_row(to + 4 * SIDE * each, added, result)
            for column in range(0, layer[EXTRA], 16):
                right = weights + (width + column) // 16 * panel
                for row in range(first, last, SIDE):
                    clear_sums()
                    add_product_to_16(_left(source, row, number, depth, rest), 2 * depth, right, steps)
                    store_sums(to, 4 * SIDE)
                    for each in range(min(SIDE, number - row)):
                        for other in range(column, min(column + 16, layer[EXTRA])):
                            total = layer[COLUMN] + other
                            extras[row + each, total] = sums[each, other - column] + extra_biases[total]
    end()


@_jit
def _left(source: int, row: int, number: int, depth: int, rest: Halves) -> int:
    """The address of 32 rows from ``row`` on; where there are less, they are copied to ``rest``, zeros behind them."""
    place = source + 2 * row * depth
    if row + SIDE <= number:
        return place
    for each in range(0, (number - row) * depth, SIDE):
        copy_row(place + 2 * each, rest.ctypes.data + 2 * each)
    for each in range((number - row) * depth, SIDE * depth):
        rest[each] = 0
    return rest.ctypes.data


@_jit
def _join(x: Halves, table: Integers, place: int, activations: Halves, first: int, last: int) -> None:
    """The input of a layer: the first columns of x, then what the layer before gives."""
    depth, source, joined = table[place, DEPTH], table[place, SOURCE], table[place, JOINED]
    width, out = table[place - 1, WIDTH], table[place - 1, OUT]
    for row in range(first, last):
        start = source + row * depth
        for column in range(joined):
            activations[start + column] = x[row, column]
        for column in range(joined, depth):
            before = column - joined
            activations[start + column] = activations[out + row * width + before] if before < width else 0


@_jit
def _backward(
    x: Halves, table: Integers, packed: Halves, rows: Integers, activations: Halves, gradient: Halves, extra_gradient: Floats,
    sums: Floats, biases: Floats, shared: Floats, to: Halves, first_part: int, last_part: int,
) -> None:  # fmt: skip
    number, deepest = len(x), max(x.shape[1], table[:, DEPTH].max())
    widest = 0
    for place in range(len(table)):
        widest = max(widest, table[place, WIDTH] + -(-table[place, EXTRA] // SIDE) * SIDE)
    block, steps = GRADIENT_BLOCK, GRADIENT_BLOCK // SIDE
    passed = np.zeros(block * widest, np.uint16)  # the gradient through ReLU, and that of what has none
    tiles = np.empty((widest // 16, 16, SIDE), np.uint16)
    turned = np.empty(widest * block, np.uint16)  # the same as a left operand
    pairs = np.empty((deepest // 16, steps, 16, SIDE), np.uint16)  # the layer's input as a right operand
    rest = np.zeros(SIDE * deepest, np.uint16)
    block_sums = np.empty((SIDE, SIDE), np.float32)
    pulls = np.empty(block * deepest, np.uint16)  # the gradient to the layer's input
    to_x = np.zeros((block, x.shape[1]), np.float32)
    begin()
    for part in range(first_part, last_part):
        begins, ends = part * PART, min((part + 1) * PART, number)
        for first in range(begins, ends, block):
            count = min(block, ends - first)
            used = -(-count // SIDE)
            pull = gradient.ctypes.data + 2 * first * gradient.shape[1]
            at = shared.shape[1]
            for place in range(len(table) - 1, -1, -1):
                layer = table[place]
                depth, width, others = layer[DEPTH], layer[WIDTH], layer[EXTRA]
                columns = width + -(-others // SIDE) * SIDE
                source = x.ctypes.data if layer[SOURCE] < 0 else activations.ctypes.data + 2 * layer[SOURCE]
                at -= width
                # through ReLU, and sums for the bias
                first_group = rows[begins] if layer[BIAS] < 0 else 0
                for each in range(count):
                    group = rows[first + each] if layer[BIAS] < 0 else 0
                    total = shared.ctypes.data + 4 * (part * shared.shape[1] + at)
                    if group != first_group:
                        total = biases.ctypes.data + 4 * (-1 - layer[BIAS] + group * width)
                    out = activations.ctypes.data + 2 * (layer[OUT] + (first + each) * width)
                    result = passed.ctypes.data + 2 * each * columns
                    for column in range(0, width, SIDE):
                        rectify_gradient(
                            pull + 2 * (each * width + column),
                            out + 2 * column,
                            total + 4 * column,
                            result + 2 * column,
                        )
                    for other in range(others):
                        value = extra_gradient[first + each, layer[COLUMN] + other]
                        passed[each * columns + width + other] = round_to_bfloat16(value)
                    for other in range(width + others, columns):
                        passed[each * columns + other] = 0
                for each in range(count * columns, used * SIDE * columns):
                    passed[each] = 0
                # the weights
                for step in range(used):
                    left = _left(source, first + step * SIDE, number, depth, rest)
                    for pair in range(16):
                        for column in range(0, columns, SIDE):
                            row = passed.ctypes.data + 2 * ((step * SIDE + 2 * pair) * columns + column)
                            tile = tiles.ctypes.data + column // 16 * TILE + 64 * pair
                            pair_rows(row, row + 2 * columns, tile, tile + TILE)
                        for column in range(0, depth, SIDE):
                            row = left + 2 * (2 * pair * depth + column)
                            tile = pairs.ctypes.data + (column // 16 * steps + step) * TILE + 64 * pair
                            pair_rows(row, row + 2 * depth, tile, tile + steps * TILE)
                    for tile in range(columns // 16):
                        corner = turned.ctypes.data + 2 * (tile * 16 * block + step * SIDE)
                        turn_tile(tiles.ctypes.data + tile * TILE, 64, corner, 2 * block)
                for row in range(0, columns, SIDE):
                    for column in range(0, depth, SIDE):
                        corner = sums.ctypes.data + 4 * (part * sums.shape[1] + layer[WEIGHT] + row * depth + column)
                        load_sums(corner, 4 * depth)
                        right = pairs.ctypes.data + column // 16 * steps * TILE
                        add_product(turned.ctypes.data + 2 * row * block, 2 * block, right, steps * TILE, used)
                        store_sums(corner, 4 * depth)
                # the input, whose columns of x are not needed unless x's gradient is
                if place == 0 and not len(to):
                    continue
                panel, joined = columns // SIDE * TILE, layer[JOINED]
                for column in range(0, depth, SIDE):
                    right = packed.ctypes.data + 2 * layer[WEIGHT] + column // 16 * panel
                    for row in range(0, count, SIDE):
                        clear_sums()
                        add_product(passed.ctypes.data + 2 * row * columns, 2 * columns, right, panel, columns // SIDE)
                        store_sums(block_sums.ctypes.data, 4 * SIDE)
                        for each in range(min(SIDE, count - row)):
                            line = block_sums.ctypes.data + 4 * SIDE * each
                            round_row(line, pulls.ctypes.data + 2 * ((row + each) * depth + column))
                            if len(to) and (place == 0 or column < joined):
                                for other in range(SIDE):
                                    if place == 0 or column + other < joined:
                                        to_x[row + each, column + other] += block_sums[each, other]
                pull = pulls.ctypes.data
                if joined:  # what is left of it moves together, from the front
                    before = table[place - 1, WIDTH]
                    for each in range(count):
                        for column in range(before):
                            inside = joined + column < depth
                            pulls[each * before + column] = pulls[each * depth + joined + column] if inside else 0
            if len(to):
                for each in range(count):
                    for column in range(0, x.shape[1], SIDE):
                        start = 4 * (each * x.shape[1] + column)
                        round_row(to_x.ctypes.data + start, to.ctypes.data + 2 * ((first + each) * x.shape[1] + column))
                    for column in range(x.shape[1]):
                        to_x[each, column] = 0
    end()
