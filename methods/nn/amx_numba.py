"""Matrix products in bfloat16 on a CPU's tile unit (Intel AMX), for loops that numba compiles.

A tile has 16 rows of 64 bytes. One instruction adds to 16x16 sums in float32 the product of 16x32 and 32x16 numbers in
bfloat16, sixteen times what a vector instruction does. The sums here are 2x2 tiles, 32x32: each tile that is loaded serves
twice. The right operand must be packed (see ``pack``): 32x16 numbers lie as 16 rows, each with two of the 32 numbers of
every column side by side.

Addresses are integers in bytes (``array.ctypes.data``); who calls sees to it that arrays are long enough and stay alive.
Sums are rounded to bfloat16 to the nearest, ties to even. Intel 64 and IA-32 Architectures Software Developer's Manual,
volume 1, chapter 18.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Halves = NDArray[np.uint16]  # bfloat16, for which numpy has no type

SIDE = 32  # of a block of sums, and how many channels a step of its product goes through
TILE = 1024  # bytes

_intrinsic: Any = intrinsic  # neither decorator has types
_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


@functools.cache
def available() -> bool:
    """Whether this processor has the unit and the system lets this process use it, which is asked for here."""
    features = get_host_cpu_features()
    if not all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512bf16", "avx512bw")):
        return False
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, request, tile_data = 158, 0x1023, 18  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0)


available()  # without the system's leave the first instruction would end the process


@_jit
def round_to_bfloat16(value: Any) -> Any:
    """A float32, finite, as the bits of the nearest bfloat16."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


# ---------------------------------------------------------------------------------------------------------- instructions
_BYTE, _WORD, _NOTHING = ir.IntType(8), ir.IntType(64), ir.VoidType()
_POINTER = _BYTE.as_pointer()


def _call(builder: Any, name: str, *arguments: Any, result: Any = _NOTHING) -> Any:
    function = ir.FunctionType(result, [each.type for each in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


@_intrinsic
def begin(typing: Any) -> Any:
    """Makes all eight tiles 16 rows of 64 bytes. Before any other instruction on tiles, in the same compiled function."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        palette, bytes_a_row, rows = [1] + [0] * 15, [64, 0] * 8 + [0] * 16, [16] * 8 + [0] * 8
        layout = bytearray(palette + bytes_a_row + rows)
        place = cgutils.alloca_once(builder, ir.ArrayType(_BYTE, 64))
        builder.store(ir.Constant(ir.ArrayType(_BYTE, 64), layout), place)
        _call(builder, "llvm.x86.ldtilecfg", builder.bitcast(place, _POINTER))
        return context.get_dummy_value()

    return types.void(), build


@_intrinsic
def end(typing: Any) -> Any:
    """Frees the tiles; after the last instruction on them."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.tilerelease")
        return context.get_dummy_value()

    return types.void(), build


def _on_tiles(name: str, *tiles: int) -> Any:
    @_intrinsic
    def instruction(typing: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _call(builder, f"llvm.x86.{name}", *[_BYTE(tile) for tile in tiles])
            return context.get_dummy_value()

        return types.void(), build

    return instruction


def _between_memory(name: str, tile: int) -> Any:
    @_intrinsic
    def instruction(typing: Any, address: Any, bytes_a_row: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _call(builder, f"llvm.x86.{name}", _BYTE(tile), builder.inttoptr(arguments[0], _POINTER), arguments[1])
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), build

    return instruction


# Tiles 0 to 3 are the sums, row by row; 4 and 5 hold rows of the left operand, 6 and 7 columns of the right one.
_zero_0, _zero_1, _zero_2, _zero_3 = (_on_tiles("tilezero", tile) for tile in range(4))
_store_0, _store_1, _store_2, _store_3 = (_between_memory("tilestored64", tile) for tile in range(4))
_load_0, _load_1, _load_2, _load_3 = (_between_memory("tileloadd64", tile) for tile in range(4))
_load_4, _load_5, _load_6, _load_7 = (_between_memory("tileloadd64", tile) for tile in range(4, 8))
_add_046, _add_147 = _on_tiles("tdpbf16ps", 0, 4, 6), _on_tiles("tdpbf16ps", 1, 4, 7)
_add_256, _add_357 = _on_tiles("tdpbf16ps", 2, 5, 6), _on_tiles("tdpbf16ps", 3, 5, 7)


@_jit
def clear_sums() -> None:
    _zero_0()
    _zero_1()
    _zero_2()
    _zero_3()


@_jit
def add_product(left: int, bytes_a_row: int, right: int, panel: int, steps: int) -> None:
    """Adds to the 32x32 sums 32 rows at ``left`` times two packed panels of 16 columns, at ``right`` and ``panel`` bytes further,
    over ``steps`` times 32 channels."""
    for _ in range(steps):
        _load_4(left, bytes_a_row)
        _load_6(right, 64)
        _add_046()
        _load_7(right + panel, 64)
        _add_147()
        _load_5(left + 16 * bytes_a_row, bytes_a_row)
        _add_256()
        _add_357()
        left += 64
        right += TILE


@_jit
def add_product_to_16(left: int, bytes_a_row: int, right: int, steps: int) -> None:
    """The same for one panel: only the first 16 columns of the sums."""
    for _ in range(steps):
        _load_4(left, bytes_a_row)
        _load_6(right, 64)
        _add_046()
        _load_5(left + 16 * bytes_a_row, bytes_a_row)
        _add_256()
        left += 64
        right += TILE


@_jit
def add_product_of_16(left: int, bytes_a_row: int, right: int, panel: int, steps: int) -> None:
    """The same for 16 rows: only the first 16 rows of the sums."""
    for _ in range(steps):
        _load_4(left, bytes_a_row)
        _load_6(right, 64)
        _add_046()
        _load_7(right + panel, 64)
        _add_147()
        left += 64
        right += TILE


@_jit
def load_sums(address: int, bytes_a_row: int) -> None:
    """The sums from 32 rows of 32 float32."""
    _load_0(address, bytes_a_row)
    _load_1(address + 64, bytes_a_row)
    _load_2(address + 16 * bytes_a_row, bytes_a_row)
    _load_3(address + 16 * bytes_a_row + 64, bytes_a_row)


@_jit
def store_sums(address: int, bytes_a_row: int) -> None:
    """The sums to 32 rows of 32 float32."""
    _store_0(address, bytes_a_row)
    _store_1(address + 64, bytes_a_row)
    _store_2(address + 16 * bytes_a_row, bytes_a_row)
    _store_3(address + 16 * bytes_a_row + 64, bytes_a_row)


@_jit
def store_sums_of_16(address: int, bytes_a_row: int) -> None:
    """The first 16 columns of the sums."""
    _store_0(address, bytes_a_row)
    _store_2(address + 16 * bytes_a_row, bytes_a_row)


# ---------------------------------------------------------------------------------------------------------------- rows
_FLOATS, _BITS, _SHORTS = (ir.VectorType(kind, 16) for kind in (ir.FloatType(), ir.IntType(32), ir.IntType(16)))
_ZERO = ir.Constant(_FLOATS, None)


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


class _Row:
    """Writes instructions on 32 numbers: two vectors in float32, or one in bfloat16."""

    def __init__(self, builder: Any):
        self.builder = builder

    def pointer(self, address: Any, place: int, kind: Any) -> Any:
        return self.builder.inttoptr(self.builder.add(address, _WORD(place)), kind.as_pointer())

    def floats(self, address: Any) -> list[Any]:
        return [self.builder.load(self.pointer(address, place, _FLOATS), align=4) for place in (0, 64)]

    def halves(self, address: Any) -> list[Any]:
        """What lies there in bfloat16, as vectors of 16 bits."""
        return [self.builder.load(self.pointer(address, place, _SHORTS), align=2) for place in (0, 32)]

    def put_floats(self, values: list[Any], address: Any) -> None:
        for place, value in zip((0, 64), values, strict=True):
            self.builder.store(value, self.pointer(address, place, _FLOATS), align=4)

    def put_rounded(self, values: list[Any], address: Any) -> None:
        kind = ir.VectorType(_BFloat(), 32)
        rounded = _call(self.builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", *values[::-1], result=kind)
        self.builder.store(rounded, self.pointer(address, 0, kind), align=2)

    def widen(self, halves: list[Any]) -> list[Any]:
        """Numbers in bfloat16 as float32: they are its upper halves."""
        shift = ir.Constant(_BITS, [16] * 16)
        return [self.builder.bitcast(self.builder.shl(self.builder.zext(x, _BITS), shift), _FLOATS) for x in halves]

    def mix(self, a: Any, b: Any, lanes: list[int]) -> Any:
        """A vector of the chosen lanes of a and b, those of b counted after those of a."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def add(self, a: list[Any], b: list[Any]) -> list[Any]:
        return [self.builder.fadd(x, y) for x, y in zip(a, b, strict=True)]

    def where(self, conditions: list[Any], values: list[Any]) -> list[Any]:
        """The values, and zero where a condition does not hold."""
        return [self.builder.select(c, v, _ZERO) for c, v in zip(conditions, values, strict=True)]


def _on_row(addresses: int, write: Callable[..., None]) -> Any:
    """A compiled function of so many addresses, whose instructions ``write`` gives."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write(_Row(builder), *arguments)
        return context.get_dummy_value()

    signature = types.void(*[types.intp] * addresses)
    if addresses == 2:

        @_intrinsic
        def two(typing: Any, a: Any, b: Any) -> Any:
            return signature, build

        return two
    if addresses == 3:

        @_intrinsic
        def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
            return signature, build

        return three

    @_intrinsic
    def four(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return signature, build

    return four


def _round_row(row: _Row, values: Any, to: Any) -> None:
    row.put_rounded(row.floats(values), to)


def _copy_row(row: _Row, values: Any, to: Any) -> None:
    for place, each in zip((0, 32), row.halves(values), strict=True):
        row.builder.store(each, row.pointer(to, place, _SHORTS), align=2)


def _rectify_row(row: _Row, values: Any, bias: Any, to: Any) -> None:
    biased = row.add(row.floats(values), row.floats(bias))
    passed = [row.builder.fcmp_unordered(">", each, _ZERO) for each in biased]  # what is not a number stays seen
    row.put_rounded(row.where(passed, biased), to)


def _rectify_gradient(row: _Row, gradient: Any, rectified: Any, total: Any, to: Any) -> None:
    nothing = ir.Constant(_SHORTS, None)
    values, places = row.halves(gradient), (0, 32)
    passed = [row.builder.icmp_unsigned("!=", each, nothing) for each in row.halves(rectified)]
    kept = [row.builder.select(c, v, nothing) for c, v in zip(passed, values, strict=True)]
    for place, each in zip(places, kept, strict=True):
        row.builder.store(each, row.pointer(to, place, _SHORTS), align=2)
    row.put_floats(row.add(row.floats(total), row.widen(kept)), total)


def _pair_rows(row: _Row, first: Any, second: Any, to: Any, other: Any) -> None:
    for a, b, place in zip(row.halves(first), row.halves(second), (to, other), strict=True):
        pairs = row.mix(a, b, [lane + 16 * half for lane in range(16) for half in range(2)])
        row.builder.store(pairs, row.pointer(place, 0, pairs.type), align=2)


def _turn_tile(row: _Row, source: Any, bytes_a_source: Any, to: Any, bytes_a_row: Any) -> None:
    starts = [row.builder.add(source, row.builder.mul(bytes_a_source, _WORD(place))) for place in range(16)]
    rows = [row.builder.load(row.pointer(start, 0, _BITS), align=2) for start in starts]
    for step in (1, 2, 4, 8):  # swaps the off-diagonal halves of blocks of twice as many rows and columns
        for place in (place for place in range(16) if not place & step):
            a, b = rows[place], rows[place + step]
            rows[place] = row.mix(a, b, [lane if not lane & step else lane - step + 16 for lane in range(16)])
            rows[place + step] = row.mix(a, b, [lane + step if not lane & step else lane + 16 for lane in range(16)])
    for place, each in enumerate(rows):
        start = row.builder.add(to, row.builder.mul(bytes_a_row, _WORD(place)))
        row.builder.store(each, row.pointer(start, 0, _BITS), align=4)


# Each for 32 numbers. (from float32, to bfloat16)
round_row = _on_row(2, _round_row)
# (from bfloat16, to bfloat16)
copy_row = _on_row(2, _copy_row)
# (sums float32, biases float32, to bfloat16): the sum plus the bias where that is positive, else 0
rectify_row = _on_row(3, _rectify_row)
# (gradients bfloat16, what was rectified bfloat16, totals float32, to bfloat16): the gradient where something passed, else 0;
# it is added to the totals too
rectify_gradient = _on_row(4, _rectify_gradient)
# (two rows bfloat16, to, to): their numbers in pairs, of the first 16 columns and of the others: two rows of packed tiles
pair_rows = _on_row(4, _pair_rows)
# (16 rows, bytes a row, to, bytes a row there): the transpose of 16 pairs in each of 16 rows. Rows of a matrix become a tile of
# the packed right operand whose columns they are; a packed tile becomes rows of the left operand whose columns it has.
turn_tile = _on_row(4, _turn_tile)


@_jit
def round_padded(matrix: Floats, rounded: Halves) -> None:
    """A matrix [N, K], float32, to bfloat16; ``rounded`` may have more rows and, up to a multiple of 32, columns: zeros."""
    (height, width), columns = matrix.shape, rounded.shape[1]
    row = np.zeros(columns, np.float32)
    for each in range(height):
        for column in range(width):
            row[column] = matrix[each, column]
        for column in range(0, columns, SIDE):
            round_row(row.ctypes.data + 4 * column, rounded.ctypes.data + 2 * (each * columns + column))
    for each in range(height, len(rounded)):
        for column in range(columns):
            rounded[each, column] = 0


@_jit
def pack(rows: Halves, packed: Halves) -> None:
    """The right operand [K, N] with these rows into ``packed`` [N / 16, K / 32, 16, 32]: panels of 16 columns, each as tiles of 32
    rows one below the other. K and N are multiples of 32."""
    depth, width = rows.shape
    for row in range(0, depth, 2):
        for column in range(0, width, SIDE):
            place = rows.ctypes.data + 2 * (row * width + column)
            tile = packed.ctypes.data + (column // 16 * (depth // SIDE) + row // SIDE) * TILE + row % SIDE * 32
            pair_rows(place, place + 2 * width, tile, tile + depth // SIDE * TILE)


@_jit
def pack_turned(columns: Halves, packed: Halves) -> None:
    """The same for the right operand [K, N] with these columns: ``columns`` is [N, K]."""
    width, depth = columns.shape
    for column in range(0, width, 16):
        for row in range(0, depth, SIDE):
            tile = packed.ctypes.data + (column // 16 * (depth // SIDE) + row // SIDE) * TILE
            turn_tile(columns.ctypes.data + 2 * (column * depth + row), 2 * depth, tile, 64)
