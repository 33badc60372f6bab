"""The products of sparse convolutions for a CPU, compiled by numba: rows are read where they lie, sums stay in registers.

The pairs (source, target) of a kernel map are listed by blocks of targets, and in a block tap after tap, so that the rows of
a block stay in the cache while all taps are gone through. The matrix of a tap then meets ``ROWS`` pairs at a time: their
products by one or two vectors of columns are summed over the input channels in vector registers, and added to the targets'
rows at the end. That is the innermost loop of a matrix product, without gathered copies, without products kept for a sum
afterwards and without zeros for absent voxels. The gradient of the kernel is the same loop over pairs instead of channels.

Loops that numba compiles from Python keep sums in memory, so that this one is written in LLVM's own instructions. It needs a
processor with AVX2; elsewhere plain torch serves. Blocks belong to one thread each and every sum has one fixed order: the
result is the same to the bit for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from adlbench.methods.nn.sparse_numba import share

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_FEATURES = get_host_cpu_features()
AVAILABLE = bool(_FEATURES.get("avx2") and _FEATURES.get("fma"))
_WIDE = bool(_FEATURES.get("avx512f"))
VECTOR = 64 if _WIDE else 32  # bytes in a register
ROWS = 8 if _WIDE else 4  # with two vectors each, as many sums as the registers hold beside the operands
BLOCK = 1024  # targets whose pairs are listed together
CHUNK = 128  # pairs that are summed in registers before they are added to the kernel's gradient

_intrinsic: Any = intrinsic  # neither decorator has types
_jit: Any = numba.njit(nogil=True, cache=True)


# ---------------------------------------------------------------------------------------------------------------- pairs
@dataclass(frozen=True)
class Runs:
    """The pairs of a kernel map, sorted by block of targets and tap."""

    sources: Integers  # int32 [pairs]
    targets: Integers  # int32 [pairs]
    starts: Integers  # int64 [blocks, K + 1]: where in a block the pairs of each tap begin, and where the last ones end
    taps: Integers  # int64 [K]: which matrix of the kernel each is for
    num_targets: int
    once: bool = False  # every target is in exactly one pair
    apart: bool = True  # all targets of a block are among its BLOCK rows

    def reversed(self) -> Runs:
        """Of the adjoint, if the map is symmetric: if j is at offset o of i, then i is at -o of j."""
        return replace(self, taps=self.taps[::-1].copy())

    def swapped(self, num_targets: int) -> Runs:
        """Of the adjoint, if no source is in two pairs, so that blocks still write to rows of their own."""
        once = len(self.sources) == num_targets
        return replace(
            self, sources=self.targets, targets=self.sources, num_targets=num_targets, once=once, apart=False
        )

    def sorted_by_source(self, num_targets: int) -> Runs:
        """Of the adjoint, whatever the map."""
        starts = np.zeros((-(-num_targets // BLOCK), self.starts.shape[1]), np.int64)
        lists = np.empty((2, len(self.sources)), np.int32)
        _sort_by_source(self.sources, self.targets, self.starts, lists, starts)
        return Runs(lists[0], lists[1], starts, self.taps, num_targets)


def list_runs(table: Tensor, absent: int) -> Runs:
    """Of a map's ``table`` int32 [M, K], in which ``absent`` means that there is no source."""
    targets, taps = table.shape
    starts = np.empty((-(-targets // BLOCK), taps + 1), np.int64)
    lists = np.empty((2, table.numel()), np.int32)
    count = _list_runs(table.numpy(), absent, lists, starts)
    sources, rows = lists[:, :count]
    return Runs(sources, rows, starts, np.arange(taps), targets, once=taps == 1 and count == targets)


@_jit
def _list_runs(table: Integers, absent: int, lists: Integers, starts: Integers) -> int:
    count = 0
    for block in range(len(starts)):
        low, high = block * BLOCK, min((block + 1) * BLOCK, len(table))
        for tap in range(table.shape[1]):
            starts[block, tap] = count
            for row in range(low, high):  # written in any case: a branch that cannot be foreseen costs more
                lists[0, count], lists[1, count] = table[row, tap], row
                count += table[row, tap] != absent
        starts[block, -1] = count
    return count


@_jit
def _sort_by_source(
    sources: Integers, targets: Integers, old: Integers, lists: Integers, starts: Integers
) -> None:  # fmt: skip
    places = np.zeros_like(starts)
    for block in range(len(old)):
        for tap in range(old.shape[1] - 1):
            for pair in range(old[block, tap], old[block, tap + 1]):
                places[sources[pair] // BLOCK, tap] += 1
    count = 0
    for block in range(len(starts)):
        for tap in range(starts.shape[1]):
            starts[block, tap] = count
            count += places[block, tap]
            places[block, tap] = starts[block, tap]
    for block in range(len(old)):
        for tap in range(old.shape[1] - 1):
            for pair in range(old[block, tap], old[block, tap + 1]):
                place = places[sources[pair] // BLOCK, tap]
                lists[0, place], lists[1, place] = targets[pair], sources[pair]
                places[sources[pair] // BLOCK, tap] += 1


# ------------------------------------------------------------------------------------------------------------- products
def multiply(values: Tensor, kernel: Tensor, runs: Runs, *, transposed: bool = False) -> Tensor:
    """[T, B]: for each target the sum over its pairs of ``values`` [S, A] at the source times ``kernel`` [K, A, B], or
    [K, B, A] if ``transposed``."""
    features, matrices = _arrays(values, kernel)
    if transposed:
        matrices = _transpose(matrices)
    shape = (runs.num_targets, matrices.shape[2])
    out = values.new_empty(shape) if runs.once or runs.apart else values.new_zeros(shape)
    arrays = (features, matrices, runs.sources, runs.targets, runs.starts, runs.taps, *_arrays(out))
    cost = len(runs.sources) * kernel[0].numel()
    share(lambda first, last: _multiply(*arrays, first, last, runs.apart, not runs.once), len(runs.starts), cost)
    return out


def kernel_gradient(features: Tensor, gradient: Tensor, kernel: Tensor, runs: Runs) -> Tensor:
    """[K, A, B]: for each tap the sum over its pairs of the outer products of ``features`` [S, A] and ``gradient`` [T, B]."""
    sums = torch.zeros_like(kernel, memory_format=torch.contiguous_format)
    arrays = (*_arrays(features, gradient), runs.sources, runs.targets, runs.starts, runs.taps, *_arrays(sums))
    cost = len(runs.sources) * kernel[0].numel()
    share(lambda first, last: _add_outer_products(*arrays, first, last), len(runs.taps), cost)
    return sums


def _arrays(*tensors: Tensor) -> list[Floats]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


@_jit
def _transpose(kernel: Floats) -> Floats:
    taps, height, width = kernel.shape
    turned = np.empty((taps, width, height), kernel.dtype)
    even = height - height % 8
    for tap in range(taps):
        matrix, result = kernel[tap], turned[tap]
        for row in range(0, even, 8):  # eight at once: what is read and what is written stays in the cache
            for column in range(width):
                line = result[column, row : row + 8]
                line[0], line[1], line[2], line[3] = (
                    matrix[row, column], matrix[row + 1, column], matrix[row + 2, column], matrix[row + 3, column],
                )  # fmt: skip
                line[4], line[5], line[6], line[7] = (
                    matrix[row + 4, column], matrix[row + 5, column], matrix[row + 6, column], matrix[row + 7, column],
                )  # fmt: skip
        for row in range(even, height):
            for column in range(width):
                result[column, row] = matrix[row, column]
    return turned


@_jit
def _multiply(
    values: Floats, kernel: Floats, sources: Integers, targets: Integers, starts: Integers, taps: Integers, out: Floats,
    first: int, last: int, clear: bool, add: bool,
) -> None:  # fmt: skip
    width, lanes = kernel.shape[2], VECTOR // values.itemsize
    for block in range(first, last):
        if clear:
            out[block * BLOCK : (block + 1) * BLOCK] = 0
        for run in range(len(taps)):
            matrix, end = kernel[taps[run]], starts[block, run + 1]
            for column in range(0, width, 2 * lanes):
                for pair in range(starts[block, run], end, ROWS):
                    count = min(ROWS, end - pair)
                    if width - column > lanes:
                        _product_by_two(values, sources, targets, matrix, out, pair, count, column, add)
                    else:
                        _product_by_one(values, sources, targets, matrix, out, pair, count, column, add)


@_jit
def _add_outer_products(
    features: Floats, gradient: Floats, sources: Integers, targets: Integers, starts: Integers, taps: Integers,
    sums: Floats, first: int, last: int,
) -> None:  # fmt: skip
    height, width, lanes = sums.shape[1], sums.shape[2], VECTOR // features.itemsize
    for block in range(len(starts)):
        for run in range(first, last):
            matrix, end = sums[taps[run]], starts[block, run + 1]
            for pair in range(starts[block, run], end, CHUNK):
                count = min(CHUNK, end - pair)
                for column in range(0, width, 2 * lanes):
                    for row in range(0, height, ROWS):
                        if width - column > lanes:
                            _outer_by_two(features, gradient, sources, targets, matrix, pair, count, row, column)
                        else:
                            _outer_by_one(features, gradient, sources, targets, matrix, pair, count, row, column)


# ---------------------------------------------------------------------------------------------------------- tiles in LLVM
_WORD = ir.IntType(64)


class _Tile:
    """Writes the instructions for a tile of ``ROWS`` times ``vectors`` sums of vectors from ``column`` on."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, vectors: int):
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        self.scalar = context.get_value_type(signature.args[0].dtype)
        self.size = 4 if isinstance(self.scalar, ir.FloatType) else 8
        self.lanes, self.vectors = VECTOR // self.size, range(vectors)
        self.kind = ir.VectorType(self.scalar, self.lanes)
        self.zero = ir.Constant(self.kind, None)

    def array(self, place: int) -> tuple[Any, Any]:
        """Address of the data and last extent of an argument."""
        array = self.context.make_array(self.signature.args[place])(self.context, self.builder, self.arguments[place])
        shape = cgutils.unpack_tuple(self.builder, array.shape)
        return self.builder.ptrtoint(array.data, _WORD), shape[-1]

    def at(self, address: Any, *indices: Any, size: int | None = None) -> Any:
        """``address`` plus the sum of ``indices`` in elements."""
        for index in indices:
            address = self.builder.add(address, self.builder.mul(index, _WORD(size or self.size)))
        return address

    def load(self, address: Any, kind: Any, size: int) -> Any:
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=size)

    def index(self, address: Any, place: Any) -> Any:
        """An entry of an int32 array."""
        return self.builder.sext(self.load(self.at(address, place, size=4), ir.IntType(32), 4), _WORD)

    def splat(self, value: Any, kind: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(undefined, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(
            single, undefined, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
        )

    def masks(self, columns: Any) -> list[Any]:
        """Which lanes of each vector are among so many ``columns``."""
        integers = ir.VectorType(_WORD, self.lanes)
        left = self.splat(columns, integers)
        firsts = [vector * self.lanes for vector in self.vectors]
        lanes = [ir.Constant(integers, list(range(first, first + self.lanes))) for first in firsts]
        return [self.builder.icmp_signed("<", lane, left) for lane in lanes]

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), arguments)

    def prefetch(self, rows: list[Any], length: Any) -> None:
        """Asks for rows that the next tile reads: they are too far from each other for the processor to guess."""
        line, end = _WORD(64), self.builder.mul(length, _WORD(self.size))
        lines = self.builder.udiv(self.builder.add(end, _WORD(63)), line)
        with cgutils.for_range(self.builder, lines) as loop:
            for row in rows:
                place = self.builder.add(row, self.builder.mul(loop.index, line))
                address = self.builder.inttoptr(place, ir.IntType(8).as_pointer())
                self.call("llvm.prefetch.p0", ir.VoidType(), address, *[ir.IntType(32)(flag) for flag in (0, 3, 1)])

    def load_vectors(self, address: Any, masks: list[Any]) -> list[Any]:
        name = f"llvm.masked.load.v{self.lanes}f{8 * self.size}.p0"
        return [
            self.call(name, self.kind, self._vector(address, vector), ir.IntType(32)(self.size), mask, self.zero)
            for vector, mask in zip(self.vectors, masks, strict=True)
        ]

    def store_vectors(self, values: list[Any], address: Any, masks: list[Any]) -> None:
        name = f"llvm.masked.store.v{self.lanes}f{8 * self.size}.p0"
        for vector, value, mask in zip(self.vectors, values, masks, strict=True):
            self.call(name, ir.VoidType(), value, self._vector(address, vector), ir.IntType(32)(self.size), mask)

    def _vector(self, address: Any, vector: int) -> Any:
        return self.builder.inttoptr(self.builder.add(address, _WORD(vector * VECTOR)), self.kind.as_pointer())

    def sum_products(self, steps: Any, operands: Callable[[Any], tuple[list[Any], list[Any]]]) -> list[list[Any]]:
        """[ROWS][vectors] variables: the sums over ``range(steps)`` of scalar times vector, of which ``operands(step)`` gives ROWS and
        ``vectors``."""
        builder = self.builder
        sums = [[cgutils.alloca_once(builder, self.kind) for _ in self.vectors] for _ in range(ROWS)]
        for each in sums:
            for one in each:
                builder.store(self.zero, one)
        with cgutils.for_range(builder, steps) as loop:
            scalars, vectors = operands(loop.index)
            for scalar, row in zip(scalars, sums, strict=True):
                spread = self.splat(scalar, self.kind)
                for vector, one in zip(vectors, row, strict=True):
                    name = f"llvm.fmuladd.v{self.lanes}f{8 * self.size}"
                    builder.store(self.call(name, self.kind, spread, vector, builder.load(one)), one)
        return sums

    def write(self, sums: list[list[Any]], rows: list[Any], count: Any, masks: list[Any], add: Any) -> None:
        """The first ``count`` rows of sums to the addresses ``rows``, added to what is there if ``add``."""
        builder, wanted = self.builder, []
        for place in range(ROWS):
            there = self.splat(builder.icmp_signed("<", _WORD(place), count), masks[0].type)
            wanted.append([builder.and_(mask, there) for mask in masks])
        with builder.if_then(add):  # a load of no lanes would be slow where the memory is fresh
            for row, address, lanes in zip(sums, rows, wanted, strict=True):
                for one, old in zip(row, self.load_vectors(address, lanes), strict=True):
                    builder.store(builder.fadd(builder.load(one), old), one)
        for row, address, lanes in zip(sums, rows, wanted, strict=True):
            self.store_vectors([builder.load(one) for one in row], address, lanes)


def _minimum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _product_tile(vectors: int) -> Any:
    @_intrinsic
    def tile(
        typing: Any, values: Any, sources: Any, targets: Any, matrix: Any, out: Any, pair: Any, count: Any, column: Any,
        add: Any,
    ) -> Any:  # fmt: skip
        """Rows ``targets[pair:pair + count]`` of out [T, B] from ``column`` on: those of values [S, A] through matrix [A, B]."""

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            self = _Tile(context, builder, signature, arguments, vectors)
            (values, depth), (sources, pairs_in_all), (targets, _), (matrix, width), (out, _) = map(
                self.array, range(5)
            )
            pair, count, column, add = arguments[5:]
            pairs = [builder.add(pair, _minimum(builder, _WORD(r), builder.sub(count, _WORD(1)))) for r in range(ROWS)]
            rows = [self.at(values, builder.mul(self.index(sources, each), depth)) for each in pairs]
            masks = self.masks(builder.sub(width, column))
            to = [self.at(out, builder.mul(self.index(targets, each), width), column) for each in pairs]
            last, next_rows = builder.sub(pairs_in_all, _WORD(1)), []
            for place in range(ROWS, 2 * ROWS):
                each = _minimum(builder, builder.add(pair, _WORD(place)), last)
                next_rows.append(self.at(values, builder.mul(self.index(sources, each), depth)))
            self.prefetch(next_rows, depth)

            def operands(step: Any) -> tuple[list[Any], list[Any]]:
                panel = self.at(matrix, builder.mul(step, width), column)
                return (
                    [self.load(self.at(row, step), self.scalar, self.size) for row in rows],
                    self.load_vectors(panel, masks),
                )

            sums = self.sum_products(depth, operands)
            self.write(sums, to, count, masks, add)
            return context.get_dummy_value()

        numbers = (types.intp, types.intp, types.intp, types.boolean)
        return types.void(values, sources, targets, matrix, out, *numbers), build

    return tile


def _outer_tile(vectors: int) -> Any:
    @_intrinsic
    def tile(
        typing: Any, features: Any, gradient: Any, sources: Any, targets: Any, sums: Any, pair: Any, count: Any, row: Any,
        column: Any,
    ) -> Any:  # fmt: skip
        """Adds to sums [A, B], from ``row`` and ``column`` on, the outer products of features [S, A] and gradient [T, B] of
        the pairs from ``pair`` on, ``count`` of them."""

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            self = _Tile(context, builder, signature, arguments, vectors)
            (features, height), (gradient, width), (sources, _), (targets, _), (sums, _) = map(self.array, range(5))
            pair, count, row, column = arguments[5:]
            last = builder.sub(height, _WORD(1))
            rows = [_minimum(builder, builder.add(row, _WORD(r)), last) for r in range(ROWS)]
            masks = self.masks(builder.sub(width, column))

            def operands(step: Any) -> tuple[list[Any], list[Any]]:
                each = builder.add(pair, step)
                source = self.at(features, builder.mul(self.index(sources, each), height))
                target = self.at(gradient, builder.mul(self.index(targets, each), width), column)
                return (
                    [self.load(self.at(source, place), self.scalar, self.size) for place in rows],
                    self.load_vectors(target, masks),
                )

            totals = self.sum_products(count, operands)
            to = [self.at(sums, builder.mul(place, width), column) for place in rows]
            self.write(totals, to, builder.sub(height, row), masks, ir.IntType(1)(1))
            return context.get_dummy_value()

        numbers = (types.intp,) * 4
        return types.void(features, gradient, sources, targets, sums, *numbers), build

    return tile


_product_by_one, _product_by_two = _product_tile(1), _product_tile(2)
_outer_by_one, _outer_by_two = _outer_tile(1), _outer_tile(2)
