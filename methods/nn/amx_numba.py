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
class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


SHORTS, FLOATS = ir.VectorType(ir.IntType(16), SIDE), ir.VectorType(ir.FloatType(), SIDE)
_BITS, _HALVES = ir.VectorType(ir.IntType(32), SIDE), ir.VectorType(_BFloat(), SIDE)
_NAMES = {SHORTS: "v32i16", FLOATS: "v32f32"}


class Rows:
    """Writes instructions on rows of 32 numbers, of which the first ``columns`` exist."""

    def __init__(self, builder: Any):
        self.builder = builder

    def pointer(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())

    def lanes(self, columns: Any) -> Any:
        count = self.builder.trunc(columns, ir.IntType(16))
        undefined = ir.Constant(SHORTS, ir.Undefined)
        single = self.builder.insert_element(undefined, count, ir.IntType(32)(0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), SIDE), None)
        spread = self.builder.shuffle_vector(single, undefined, places)
        return self.builder.icmp_signed("<", ir.Constant(SHORTS, list(range(SIDE))), spread)

    def load(self, address: Any, columns: Any, kind: Any) -> Any:
        """Zero where there is no column."""
        size, nothing = ir.IntType(32)(2), ir.Constant(kind, None)
        arguments = self.pointer(address, kind), size, self.lanes(columns), nothing
        return _call(self.builder, f"llvm.masked.load.{_NAMES[kind]}.p0", *arguments, result=kind)

    def halves(self, address: Any, columns: Any = None) -> Any:
        """What lies there in bfloat16, as 16 bits each; all 32 without ``columns``."""
        if columns is None:
            return self.builder.load(self.pointer(address, SHORTS), align=2)
        return self.load(address, columns, SHORTS)

    def widened(self, address: Any, columns: Any) -> Any:
        return self.widen(self.halves(address, columns))

    def widen(self, halves: Any) -> Any:
        """Numbers in bfloat16 as float32: they are its upper halves."""
        bits = self.builder.zext(halves, _BITS)
        return self.builder.bitcast(self.builder.shl(bits, ir.Constant(_BITS, [16] * SIDE)), FLOATS)

    def floats(self, address: Any) -> Any:
        return self.builder.load(self.pointer(address, FLOATS), align=4)

    def store(self, value: Any, address: Any, columns: Any) -> None:
        arguments = value, self.pointer(address, value.type), ir.IntType(32)(2), self.lanes(columns)
        _call(self.builder, f"llvm.masked.store.{_NAMES[value.type]}.p0", *arguments)

    def put(self, value: Any, address: Any) -> None:
        self.builder.store(value, self.pointer(address, value.type), align=2)

    def rounded(self, floats: Any) -> Any:
        """32 float32 as 32 bfloat16."""
        low, high = (self.shuffle(floats, floats, range(start, start + 16)) for start in (0, 16))
        halves = _call(self.builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", high, low, result=_HALVES)
        return self.builder.bitcast(halves, SHORTS)

    def shuffle(self, a: Any, b: Any, places: Any) -> Any:
        """A vector of the chosen places of a and b, those of b counted after those of a."""
        places = list(places)
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))

    def pairs(self, first: Any, second: Any) -> list[Any]:
        """Two rows number by number: the first 16 of each, and the others."""
        halves = ([place for n in range(start, start + 16) for place in (n, SIDE + n)] for start in (0, 16))
        return [self.shuffle(first, second, places) for places in halves]


def instructions(write: Callable[..., None]) -> Callable[..., Any]:
    """What an intrinsic's second result is, for one that ``write(rows, *arguments)`` gives."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write(Rows(builder), *arguments)
        return context.get_dummy_value()

    return build


@_intrinsic
def round_row(typing: Any, row: Any, to: Any) -> Any:
    """32 numbers from float32 to bfloat16."""

    def write(rows: Rows, row: Any, to: Any) -> None:
        rows.put(rows.rounded(rows.floats(row)), to)

    return types.void(*[types.intp] * 2), instructions(write)


@_intrinsic
def copy_row(typing: Any, row: Any, to: Any) -> Any:
    """32 numbers in bfloat16."""

    def write(rows: Rows, row: Any, to: Any) -> None:
        rows.put(rows.halves(row), to)

    return types.void(*[types.intp] * 2), instructions(write)


@_intrinsic
def rectify_row(typing: Any, row: Any, bias: Any, to: Any) -> Any:
    """32 sums plus biases, float32, where that is positive, else 0, to bfloat16; what is not a number stays seen."""

    def write(rows: Rows, row: Any, bias: Any, to: Any) -> None:
        zero = ir.Constant(FLOATS, None)
        biased = rows.builder.fadd(rows.floats(row), rows.floats(bias))
        passed = rows.builder.fcmp_unordered(">", biased, zero)
        rows.put(rows.rounded(rows.builder.select(passed, biased, zero)), to)

    return types.void(*[types.intp] * 3), instructions(write)


@_intrinsic
def rectify_gradient(typing: Any, gradient: Any, rectified: Any, total: Any, to: Any) -> Any:
    """32 gradients in bfloat16 where something was rectified, else 0; they are added to the totals, float32, too."""

    def write(rows: Rows, gradient: Any, rectified: Any, total: Any, to: Any) -> None:
        nothing = ir.Constant(SHORTS, None)
        passed = rows.builder.icmp_unsigned("!=", rows.halves(rectified), nothing)
        kept = rows.builder.select(passed, rows.halves(gradient), nothing)
        rows.put(kept, to)
        rows.put(rows.builder.fadd(rows.floats(total), rows.widen(kept)), total)

    return types.void(*[types.intp] * 4), instructions(write)


@_intrinsic
def pair_rows(typing: Any, first: Any, second: Any, to: Any, other: Any) -> Any:
    """32 numbers of two rows in bfloat16 in pairs, of the first 16 columns and of the others: two rows of packed tiles."""

    def write(rows: Rows, first: Any, second: Any, to: Any, other: Any) -> None:
        for pairs, place in zip(rows.pairs(rows.halves(first), rows.halves(second)), (to, other), strict=True):
            rows.put(pairs, place)

    return types.void(*[types.intp] * 4), instructions(write)


@_intrinsic
def turn_tile(typing: Any, source: Any, bytes_a_source: Any, to: Any, bytes_a_row: Any) -> Any:
    """The transpose of 16 pairs in each of 16 rows. Rows of a matrix become a tile of the packed right operand whose columns they
    are; a packed tile becomes rows of the left operand whose columns it has."""

    def write(rows: Rows, source: Any, bytes_a_source: Any, to: Any, bytes_a_row: Any) -> None:
        builder, kind = rows.builder, ir.VectorType(ir.IntType(32), 16)

        def line(start: Any, bytes_each: Any, place: int) -> Any:
            return rows.pointer(builder.add(start, builder.mul(bytes_each, _WORD(place))), kind)

        lines = [builder.load(line(source, bytes_a_source, place), align=2) for place in range(16)]
        for step in (1, 2, 4, 8):  # swaps the off-diagonal halves of blocks of twice as many rows and columns
            for place in (place for place in range(16) if not place & step):
                a, b = lines[place], lines[place + step]
                lines[place] = rows.shuffle(a, b, [n if not n & step else n - step + 16 for n in range(16)])
                lines[place + step] = rows.shuffle(a, b, [n + step if not n & step else n + 16 for n in range(16)])
        for place, each in enumerate(lines):
            builder.store(each, line(to, bytes_a_row, place), align=4)

    return types.void(*[types.intp] * 4), instructions(write)


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
