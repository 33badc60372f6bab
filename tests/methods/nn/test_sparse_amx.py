"""Sparse convolutions in bfloat16 on the tile unit against dense ones in double precision, on the same rounded numbers.

Products of two numbers in bfloat16 are exact in float32, and a sum of n of them is off by n units of 2^-24 of the sum of
their sizes at most, however it is ordered; rounding what comes out to bfloat16 (8 bits) adds 2^-8 of it. Both bounds are
computed, the former by the same dense convolution of absolute values.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("numba")

from adlbench.methods.nn import amx_numba, sparse_coordinates, sparse_numba
from adlbench.methods.nn.sparse_conv import SparseConv
from adlbench.methods.nn.sparse_coordinates import TorchCoordinates
from adlbench.methods.nn.sparse_tensor import SparseTensor, quantise, sparse_tensor

needs_tiles = pytest.mark.skipif(not amx_numba.available(), reason="this CPU has no tile unit (AMX), or hides it")

ITEMS, SIDE = 3, 16
TINY = 2.0**-100  # numbers that are too small for the unit count as zero
GEOMETRIES = [(1, 1, False), (3, 1, False), (1, 2, False), (2, 2, False), (3, 2, False), (2, 2, True), (3, 2, True)]
WIDTHS = [(1, 3), (3, 16), (24, 40), (40, 24), (70, 33), (32, 64)]


def rounded(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16().float()


def make_tensor(channels: int, seed: int = 0) -> SparseTensor:
    """A full item, one with a surface, one with a single voxel; more voxels than a block of targets has."""
    generator = torch.Generator().manual_seed(seed)
    full = torch.randint(0, SIDE, (3000, 3), generator=generator)
    plane = full[:300].clone()
    plane[:, 2] = (plane[:, 0] + plane[:, 1]) // 2
    rows = [torch.cat([torch.full((len(v), 1), i), v], 1) for i, v in enumerate((full, plane, full[:1]))]
    coordinates = torch.cat(rows).unique(dim=0)
    assert len(coordinates) > 2048
    return sparse_tensor(rounded(len(coordinates), channels, seed=seed), coordinates, ITEMS)


def dense(x: SparseTensor, features: Tensor, kernel: Tensor, size: int, stride: int, transposed: bool) -> Tensor:
    """The rows of the convolution of [B, C, Z, Y, X] with zeros where there is no voxel."""

    def cells(level: int) -> tuple[Tensor, ...]:
        item, *voxel = x.manager.coordinates(level).unbind(1)
        return (item, *(axis // level for axis in reversed(voxel)))

    grid = features.new_zeros(ITEMS, *[SIDE // x.stride] * 3, features.shape[1])
    grid = grid.index_put(cells(x.stride), features).permute(0, 4, 1, 2, 3)
    weight = kernel.view(size, size, size, *kernel.shape[1:])
    if transposed:
        out = functional.conv_transpose3d(
            grid,
            weight.permute(3, 4, 0, 1, 2),
            stride=stride,
            padding=size // 2 if size % 2 else 0,
            output_padding=size % 2,
        )
        return out.permute(0, 2, 3, 4, 1)[cells(x.stride // stride)]
    grid = functional.pad(grid, (size // 2,) * 6 if size % 2 else (0, size - 1) * 3)
    out = functional.conv3d(grid, weight.permute(4, 3, 0, 1, 2), stride=stride)
    return out.permute(0, 2, 3, 4, 1)[cells(x.stride * stride)]


def assert_within_rounding(found: Tensor, exact: Tensor, sizes: Tensor, terms: int) -> None:
    """``sizes`` are the sums of the sizes of the ``terms`` that are summed at most."""
    bound = terms * 2.0**-24 * sizes + TINY
    if found.dtype == torch.bfloat16:
        bound = bound * (1 + 2.0**-8) + 2.0**-8 * exact.abs()
    error = (found.double() - exact).abs()
    assert (error <= bound).all(), f"{(error / bound).max():.2f} times the bound"


def convolve_and_compare(
    x: SparseTensor, conv: SparseConv, *, stride: int, transposed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and the gradients of a random projection of it to features and kernel."""
    features = x.features.bfloat16().requires_grad_()
    size, (taps, inputs, outputs) = conv.kernel_size, conv.kernel.shape
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x.replace(features)).features
    assert out.dtype == torch.bfloat16
    projection = rounded(*out.shape, seed=9)
    found = (out, *torch.autograd.grad(out, [features, conv.kernel], projection.bfloat16()))
    assert [each.dtype for each in found] == [torch.bfloat16, torch.bfloat16, torch.float32]
    expected = []
    for change in (torch.Tensor.double, lambda value: value.double().abs()):
        leaves = [change(each.detach()).requires_grad_() for each in (x.features, conv.kernel)]
        result = dense(x, *leaves, size, stride, transposed)
        expected.append((result, *torch.autograd.grad(result, leaves, change(projection))))
    terms = (taps * inputs, taps * outputs, len(features) * taps)
    for ours, exact, sizes, count in zip(found, *expected, terms, strict=True):
        assert_within_rounding(ours.detach(), exact.detach(), sizes.detach(), count)
    return found


def make_conv(inputs: int, outputs: int, size: int, stride: int, transposed: bool) -> SparseConv:
    conv = SparseConv(inputs, outputs, size, stride, transposed=transposed)
    with torch.no_grad():
        conv.kernel.copy_(rounded(*conv.kernel.shape, seed=1))
    return conv


@needs_tiles
@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
@pytest.mark.parametrize(("size", "stride", "transposed"), GEOMETRIES)
def test_convolution_is_conv3d_up_to_rounding(
    size: int, stride: int, transposed: bool, inputs: int, outputs: int
) -> None:
    x = make_tensor(inputs)
    if transposed:
        x.manager.coordinates(stride)
        x = SparseTensor(rounded(len(x.manager.coordinates(stride)), inputs, seed=2), x.manager, stride)
    convolve_and_compare(x, make_conv(inputs, outputs, size, stride, transposed), stride=stride, transposed=transposed)


@needs_tiles
def test_a_single_voxel_sees_itself_only() -> None:
    x = sparse_tensor(rounded(1, 24, seed=0), torch.tensor([[0, 5, 6, 7]]), 1)
    _, _, to_kernel = convolve_and_compare(x, make_conv(24, 7, 3, 1, False), stride=1, transposed=False)
    assert to_kernel.flatten(1).any(1).nonzero().flatten().tolist() == [13]


@needs_tiles
def test_where_no_tap_finds_a_voxel_all_is_zero() -> None:
    odd = torch.tensor([[0, 1, 1, 1], [0, 3, 5, 7]])
    conv, features = make_conv(4, 5, 1, 2, False), torch.ones(2, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(sparse_tensor(features, odd, 1)).features
    gradients = torch.autograd.grad(out.float().sum(), [features, conv.kernel])
    assert not any(each.any() for each in (out, *gradients))


@needs_tiles
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_what_is_not_finite_reaches_its_neighbours_only(bad: float) -> None:
    """Rows and columns that fill up the tiles hold no old numbers."""
    x, conv = make_tensor(24), make_conv(24, 24, 3, 1, False)
    row = int((x.coordinates[:, 0] == 1).nonzero()[50])  # on the plane
    features = x.features.clone()
    features[row] = bad
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x.replace(features)).features
    near = (x.coordinates - x.coordinates[row]).abs()
    near = (near[:, 0] == 0) & (near[:, 1:] <= 1).all(1)
    assert 1 < near.sum() < 28
    assert torch.equal(~out.isfinite().all(1), near)


@needs_tiles
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (2, 2)])
def test_the_number_of_threads_changes_no_bit(size: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_numba, "PARALLEL", 0)
    x, conv = make_tensor(20), make_conv(20, 36, size, stride, False)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(convolve_and_compare(x, conv, stride=stride, transposed=False))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@needs_tiles
def test_a_kernel_in_bfloat16_gets_a_gradient_in_bfloat16() -> None:
    x, kernel = make_tensor(8), rounded(27, 8, 8, seed=3).bfloat16().requires_grad_()
    out = x.manager.convolve(x.features.bfloat16(), kernel, 1, 1, 3)
    (gradient,) = torch.autograd.grad(out.float().sum(), kernel)
    assert gradient.dtype == torch.bfloat16


@pytest.fixture
def no_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(amx_numba, "available", lambda: False)
    sparse_coordinates.tile_products.cache_clear()
    yield
    sparse_coordinates.tile_products.cache_clear()


@pytest.mark.usefixtures("no_tiles")
@pytest.mark.skipif(not sparse_coordinates.products().AVAILABLE, reason="the processor has no AVX2")
@pytest.mark.parametrize(("inputs", "outputs"), [(24, 40), (3, 16)])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (2, 2)])
def test_without_the_unit_results_are_the_same_but_for_the_order_of_sums(
    size: int, stride: int, inputs: int, outputs: int
) -> None:
    x = make_tensor(inputs)
    assert not sparse_coordinates.on_tiles(x.features.bfloat16())
    convolve_and_compare(x, make_conv(inputs, outputs, size, stride, False), stride=stride, transposed=False)


@pytest.mark.parametrize("size", [1, 3])
def test_plain_torch_multiplies_in_bfloat16(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_coordinates, "compiled_products", lambda features: None)
    x, conv = make_tensor(8), make_conv(8, 8, size, 1, False)
    manager = x.manager
    assert isinstance(manager, TorchCoordinates)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x).features
    assert out.dtype == torch.bfloat16
    padded = torch.cat([x.features, x.features.new_zeros(1, 8)])
    columns = manager.kernel_map(1, 1, size).table.long().unbind(1)
    exact = sum(padded[c].double() @ m.double() for c, m in zip(columns, conv.kernel.detach(), strict=True))
    torch.testing.assert_close(out.detach().double(), exact, rtol=2**-7, atol=0.1)  # each tap may be rounded
    (gradient,) = torch.autograd.grad(out.float().sum(), conv.kernel)
    assert gradient.dtype == torch.float32


def test_quantised_clouds_go_through_a_network_as_in_float32() -> None:
    """The types along a stage of a network: whatever multiplies, what comes out is close to float32."""
    points = torch.rand(2, 500, 3, generator=torch.Generator().manual_seed(0)) * 8
    voxels = quantise(points, 1.0)
    features = rounded(len(voxels.coordinates), 6, seed=5)
    net = torch.nn.Sequential(
        make_conv(6, 24, 3, 1, False), make_conv(24, 24, 2, 2, False), make_conv(24, 6, 2, 2, True)
    )
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(net(sparse_tensor(features, voxels.coordinates, 2)).features.float())
    exact, halves = found
    assert (halves - exact).norm() < 0.01 * exact.norm()  # three roundings of 2^-9 each, on average
