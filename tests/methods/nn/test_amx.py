"""The tile unit's products and conversions, against numpy in double precision and against torch's bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")
amx = pytest.importorskip("adlbench.methods.nn.amx_numba")
pytestmark = pytest.mark.skipif(not amx.available(), reason="this processor has no AMX, or the system keeps it back")


def bits(x: torch.Tensor) -> np.ndarray:
    return x.bfloat16().contiguous().view(torch.uint16).numpy()


def number(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).view(torch.bfloat16)


@numba.njit
def product(left: Any, right: Any, sums: Any) -> None:
    """sums [M, N] += left [M, K] times packed right."""
    (rows, depth), columns = left.shape, sums.shape[1]
    steps = depth // 32
    amx.begin()
    for row in range(0, rows, 32):
        for column in range(0, columns, 32):
            place = sums.ctypes.data + 4 * (row * columns + column)
            amx.load_sums(place, 4 * columns)
            panel = right.ctypes.data + column // 16 * steps * 1024
            amx.add_product(left.ctypes.data + 2 * row * depth, 2 * depth, panel, steps * 1024, steps)
            amx.store_sums(place, 4 * columns)
    amx.end()


@pytest.mark.parametrize(("rows", "depth", "columns"), [(32, 32, 32), (64, 96, 160)])
def test_products_add_to_sums(rows: int, depth: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((rows, depth), (depth, columns)))
    begun = torch.randn(rows, columns, generator=generator)
    packed = np.empty((columns // 16, depth // 32, 16, 32), np.uint16)
    amx.pack(bits(right), packed)
    turned = np.empty_like(packed)
    amx.pack_turned(bits(right.T), turned)
    np.testing.assert_array_equal(turned, packed)
    sums = begun.clone()
    product(bits(left), packed, sums.numpy())
    torch.testing.assert_close(sums.double(), begun.double() + left.double() @ right.double(), rtol=0, atol=1e-5)


def test_padding_is_zeros() -> None:
    matrix = torch.randn(3, 37, generator=torch.Generator().manual_seed(3))
    padded = np.full((5, 64), 7, np.uint16)
    amx.round_padded(matrix.numpy(), padded)
    assert torch.equal(number(padded)[:3, :37], matrix.bfloat16())
    assert (padded[3:] == 0).all()
    assert (padded[:, 37:] == 0).all()


def test_rounding_is_torchs() -> None:
    """To the nearest, ties to even: 1 + 2^-8 is a tie below 1 + 2^-7, 1 + 3 * 2^-8 one above it."""
    values = torch.cat([torch.randn(500, generator=torch.Generator().manual_seed(1)) * 1e3, torch.tensor(
        [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.3e38, 1e-30, -65535.0, 1 / 3, 2.0**-126, float("inf"), -float("inf")]
    )])  # fmt: skip
    expected = bits(values)

    @numba.njit
    def by_row(source: Any, target: Any) -> None:
        for place in range(0, len(source), 32):
            amx.round_row(source.ctypes.data + 4 * place, target.ctypes.data + 2 * place)

    rounded = np.empty(len(values), np.uint16)
    assert len(values) % 32 == 0
    by_row(values.numpy(), rounded)
    np.testing.assert_array_equal(rounded, expected)
    finite = values[values.isfinite()]
    one_by_one = np.array([amx.round_to_bfloat16(np.float32(value)) for value in finite], np.uint16)
    np.testing.assert_array_equal(one_by_one, bits(finite))


def test_a_turned_tile_is_the_transpose() -> None:
    rows = torch.randn(32, 32, generator=torch.Generator().manual_seed(2)).bfloat16()

    @numba.njit
    def turn(source: Any, tiles: Any, target: Any) -> None:
        for pair in range(16):
            place = source.ctypes.data + 128 * pair
            amx.pair_rows(place, place + 64, tiles[0].ctypes.data + 64 * pair, tiles[1].ctypes.data + 64 * pair)
        for tile in range(2):
            amx.turn_tile(tiles[tile].ctypes.data, 64, target.ctypes.data + 1024 * tile, 64)

    tiles, target = np.empty((2, 16, 32), np.uint16), np.empty((32, 32), np.uint16)
    turn(bits(rows), tiles, target)
    assert torch.equal(number(target), rows.T)
    packed = np.empty((2, 1, 16, 32), np.uint16)
    amx.pack(bits(rows), packed)
    np.testing.assert_array_equal(tiles, packed[:, 0])


def test_what_is_not_a_number_passes_relu() -> None:
    values = torch.zeros(32)
    values[3], values[4], values[5] = float("nan"), -1.0, 2.0

    @numba.njit
    def rectify(source: Any, bias: Any, target: Any) -> None:
        amx.rectify_row(source.ctypes.data, bias.ctypes.data, target.ctypes.data)

    out = np.empty(32, np.uint16)
    rectify(values.numpy(), np.full(32, 0.5, np.float32), out)
    expected = torch.relu(values + 0.5).bfloat16()
    torch.testing.assert_close(number(out), expected, rtol=0, atol=0, equal_nan=True)
