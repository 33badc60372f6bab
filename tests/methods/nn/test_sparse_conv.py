"""Sparse layers against dense ones on the same support, and against brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError, DataError
from adlbench.methods.nn import sparse_coordinates
from adlbench.methods.nn import sparse_tensor as sparse_tensor_module
from adlbench.methods.nn.sparse_conv import (
    ConvNormReLU,
    ResidualBlock,
    SparseBatchNorm,
    SparseConv,
    SparseGlobalPool,
    SparseInstanceNorm,
    SparsePool,
)
from adlbench.methods.nn.sparse_coordinates import KernelMap, TorchCoordinates, kernel_offsets
from adlbench.methods.nn.sparse_tensor import SparseTensor, quantise, sparse_tensor

ITEMS, LOW, SIDE = 2, -9, 36  # the dense grid [LOW, LOW + SIDE)^3; both are multiples of 1, 2 and 3


def make_tensor(
    channels: int = 5, points: int = 120, dtype: torch.dtype = torch.float64, seed: int = 0
) -> SparseTensor:
    generator = torch.Generator().manual_seed(seed)
    voxels = quantise(torch.rand(ITEMS, points, 3, generator=generator) * 9 - 4, 1.0)
    features = torch.randn(len(voxels.coordinates), channels, generator=generator, dtype=dtype)
    return sparse_tensor(features.requires_grad_(), voxels.coordinates, ITEMS)


def cells(x: SparseTensor, low: int) -> tuple[Tensor, ...]:
    """Where the rows of ``x`` are in a dense grid [B, C, Z, Y, X]: (item, z, y, x)."""
    item, *voxel = x.coordinates.unbind(1)
    return (item, *((axis - low) // x.stride for axis in reversed(voxel)))


def to_dense(x: SparseTensor, low: int, side: int) -> Tensor:
    shape = (ITEMS, *[side // x.stride] * 3, x.features.shape[1])
    return x.features.new_zeros(shape).index_put(cells(x, low), x.features).permute(0, 4, 1, 2, 3)


def at_voxels(dense: Tensor, x: SparseTensor, low: int) -> Tensor:
    return dense.permute(0, 2, 3, 4, 1)[cells(x, low)]


def dense_weight(conv: SparseConv) -> Tensor:
    """[Cout, Cin, kz, ky, kx]: the kernel's index runs fastest along x."""
    size = conv.kernel_size
    return conv.kernel.view(size, size, size, *conv.kernel.shape[1:]).permute(4, 3, 0, 1, 2)


def assert_same(ours: Tensor, dense: Tensor, inputs: list[Tensor]) -> None:
    """Values, and gradients of a random projection with respect to ``inputs``."""
    torch.testing.assert_close(ours, dense, atol=1e-10, rtol=1e-10)
    projection = torch.randn(ours.shape, generator=torch.Generator().manual_seed(9), dtype=ours.dtype)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, projection, retain_graph=True),
        torch.autograd.grad(dense, inputs, projection),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.fixture(params=["compiled", "by table", "by pairs", "as it chooses"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled; both ways of plain torch, and the mixtures of them that the number of neighbours leads to."""
    if request.param == "compiled":
        if sparse_coordinates.compiled_products(torch.ones(1)) is None:
            pytest.skip("numba is not installed, or the processor has no AVX2")
        return
    monkeypatch.setattr(sparse_coordinates, "compiled_products", lambda features: None)
    if request.param != "as it chooses":
        monkeypatch.setattr(KernelMap, "prefers_table", lambda self, channels: request.param == "by table")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("kernel_size", "stride"), [(1, 1), (3, 1), (5, 1), (2, 1), (1, 2), (2, 2), (3, 2), (4, 2), (3, 3)]
)
def test_convolution_is_conv3d_on_the_same_support(kernel_size: int, stride: int) -> None:
    low = -8 if stride == 2 else LOW
    x, conv = make_tensor(), SparseConv(5, 7, kernel_size, stride, bias=True).double()
    y = conv(x)
    assert y.stride == stride
    dense = to_dense(x, low, SIDE)
    if kernel_size % 2:  # centred
        dense = functional.conv3d(dense, dense_weight(conv), conv.bias, stride, padding=kernel_size // 2)
    else:  # offsets 0 .. kernel_size - 1
        dense = functional.conv3d(
            functional.pad(dense, (0, kernel_size - 1) * 3), dense_weight(conv), conv.bias, stride
        )
    assert_same(y.features, at_voxels(dense, y, low), [x.features, conv.kernel])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_transposed_convolution_restores_coordinates_and_is_conv_transpose3d(kernel_size: int) -> None:
    x, low = make_tensor(), -8
    down, up = SparseConv(5, 6, 2, 2).double(), SparseConv(6, 4, kernel_size, 2, transposed=True).double()
    coarse = down(x)
    y = up(coarse)
    assert y.stride == 1
    assert torch.equal(y.coordinates, x.coordinates)
    size = up.kernel_size
    weight = up.kernel.view(size, size, size, 6, 4).permute(3, 4, 0, 1, 2)
    odd = kernel_size % 2
    dense = functional.conv_transpose3d(
        to_dense(coarse, low, SIDE), weight, stride=2, padding=kernel_size // 2 if odd else 0, output_padding=odd
    )
    assert_same(y.features, at_voxels(dense, y, low), [x.features, down.kernel, up.kernel])


def test_dilation_is_that_of_conv3d() -> None:
    x, conv = make_tensor(), SparseConv(5, 3, 3, dilation=2).double()
    dense = functional.conv3d(to_dense(x, LOW, SIDE), dense_weight(conv), padding=2, dilation=2)
    assert_same(conv(x).features, at_voxels(dense, x, LOW), [x.features, conv.kernel])


def test_x_runs_fastest_in_the_kernel() -> None:
    """MinkowskiEngine's order. A kernel of one tap moves the features by that tap's offset."""
    offsets = kernel_offsets(3)
    assert offsets[0].tolist() == [-1, -1, -1]
    assert offsets[1].tolist() == [0, -1, -1]
    assert offsets[3].tolist() == [-1, 0, -1]
    assert offsets[13].tolist() == [0, 0, 0]
    assert kernel_offsets(2).tolist()[:3] == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]])
    conv = SparseConv(1, 1, 3)
    nn.init.zeros_(conv.kernel)
    conv.kernel.data[14] = 1.0  # reads the voxel at x + 1
    assert conv(sparse_tensor(torch.tensor([[3.0], [5.0]]), coordinates, 1)).features.tolist() == [[5.0], [0.0]]


@pytest.mark.usefixtures("way")
def test_a_single_voxel_sees_itself_only() -> None:
    conv, features = SparseConv(2, 3, 3), torch.randn(1, 2, requires_grad=True)
    out = conv(sparse_tensor(features, torch.tensor([[0, -7, 2**20, 3]]), 1)).features
    torch.testing.assert_close(out, features @ conv.kernel[13])
    out.sum().backward()
    assert conv.kernel.grad is not None
    assert set(conv.kernel.grad.flatten(1).abs().sum(1).nonzero().flatten().tolist()) == {13}


def test_more_voxels_than_can_be_numbered_are_refused() -> None:
    apart = torch.tensor([[0, 0, 0, 0], [0, 2**21, 2**21, 2**21]])
    with pytest.raises(DataError, match="more than can be numbered"):
        sparse_tensor(torch.ones(2, 1), apart, 1)
    near = sparse_tensor(
        torch.ones(2, 1), apart.clamp(max=2**20), 1
    )  # 2^60 cells and a product beyond 2^31 are no problem
    torch.testing.assert_close(SparseConv(1, 1, 3)(near).features.diff(dim=0), torch.zeros(1, 1))
    many = torch.zeros(1, 4, dtype=torch.int64).expand(2**31, 4)
    with pytest.raises(DataError, match="fewer than 2\\^31"):
        sparse_tensor(torch.ones(1, 1), many, 1)


def test_items_of_unequal_sizes_negative_coordinates_and_an_item_without_voxels() -> None:
    """Each item of a batch, alone, gives the same."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(-6, 6, (40, 3), generator=generator).unique(dim=0)
    sizes = (len(places), 0, 1)
    rows = torch.cat([torch.cat([torch.full((n, 1), i), places[:n]], 1) for i, n in enumerate(sizes)])
    features = torch.randn(len(rows), 3, generator=generator)
    net = nn.Sequential(SparseConv(3, 4, 3), SparseConv(4, 4, 2, 2), SparseConv(4, 2, 3))
    whole = net(sparse_tensor(features, rows, 3))
    for item in (0, 2):
        mine = rows[:, 0] == item
        alone = net(sparse_tensor(features[mine], rows[mine] * torch.tensor([0, 1, 1, 1]), 1))
        of_item = whole.coordinates[:, 0] == item
        assert torch.equal(alone.coordinates[:, 1:], whole.coordinates[of_item, 1:])
        torch.testing.assert_close(alone.features, whole.features[of_item], atol=1e-6, rtol=1e-5)
    with pytest.raises(DataError, match="without voxels"):
        sparse_tensor(features[:0], rows[:0], 1)


@pytest.mark.parametrize(("kernel_size", "out_stride"), [(3, 1), (3, 2), (2, 2), (5, 1)])
def test_compiled_maps_are_those_of_torch_to_the_bit(
    kernel_size: int, out_stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    places = torch.randint(-9, 9, (2, 300, 3), generator=torch.Generator().manual_seed(0)).float()
    maps, levels = [], []
    for compiled in (True, False):
        for module in (sparse_coordinates, sparse_tensor_module):
            monkeypatch.setattr(module, "compiled", lambda like, compiled=compiled: compiled)
        voxels = quantise(places, 1.0)
        manager = TorchCoordinates(voxels.coordinates, 2)
        maps.append(manager.kernel_map(1, out_stride, kernel_size))
        levels.append((voxels.point_to_voxel, voxels.counts, manager.coordinates(out_stride)))
    assert all(torch.equal(a, b) for a, b in zip(*levels, strict=True))
    ours, theirs = maps
    for one, other in ((ours, theirs), (ours.adjoint, theirs.adjoint)):
        assert torch.equal(one.table, other.table)
        assert one.num_pairs == other.num_pairs
        for name in ("sources", "targets", "order", "bounds"):
            assert torch.equal(getattr(one.pairs, name), getattr(other.pairs, name)), name
        assert (one.pairs.taps, one.pairs.sizes, one.pairs.centre) == (
            other.pairs.taps, other.pairs.sizes, other.pairs.centre,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_maximum_is_torchs_to_the_bit(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    x = make_tensor(dtype=dtype)
    features = x.features.detach().round().requires_grad_()  # many are equal
    found = []
    for compiled in (True, False):
        monkeypatch.setattr(sparse_coordinates, "compiled", lambda like, compiled=compiled: compiled)
        out = SparsePool("max", 3, 2)(x.replace(features)).features
        found.append((out, *torch.autograd.grad(out.square().sum(), features)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_pooling_of_a_coarse_voxel_without_input_is_zero() -> None:
    """A 1^3 kernel of stride 2 reads the corner of each coarse voxel only, which may be empty."""
    x = sparse_tensor(torch.tensor([[-3.0], [-5.0]]), torch.tensor([[0, 0, 0, 0], [0, 3, 3, 3]]), 1)
    assert SparsePool("max", 1, 2)(x).features.tolist() == [[-3.0], [0.0]]


def test_items_do_not_see_each_other() -> None:
    x, conv = make_tensor(), SparseConv(5, 4, 3).double()
    first = x.coordinates[:, 0] == 0
    alone = sparse_tensor(x.features[first], x.coordinates[first], 1)
    torch.testing.assert_close(conv(x).features[first], conv(alone).features)


@pytest.mark.usefixtures("way")
def test_a_network_passes_gradcheck() -> None:
    x = make_tensor(channels=2, points=6)
    net = nn.Sequential(SparseConv(2, 2, 3), SparseConv(2, 3, 3, 2), SparseConv(3, 2, 2, 2, transposed=True)).double()
    manager = x.manager

    def run(features: Tensor, *kernels: Tensor) -> Tensor:
        out = SparseTensor(features, manager)
        for conv, kernel in zip(net, kernels, strict=True):
            stride = out.stride // conv.stride if conv.transposed else out.stride * conv.stride
            out = SparseTensor(
                manager.convolve(out.features, kernel, out.stride, stride, conv.kernel_size), manager, stride
            )
        return out.features

    assert torch.autograd.gradcheck(run, (x.features, *[conv.kernel for conv in net]))


@pytest.mark.usefixtures("way")
def test_no_gradient_is_computed_that_nobody_wants() -> None:
    x, conv = make_tensor(), SparseConv(5, 4, 3).double()
    conv.requires_grad_(False)
    conv(x).features.sum().backward()
    assert conv.kernel.grad is None
    conv.requires_grad_(True)
    conv(x.replace(x.features.detach())).features.sum().backward()
    assert conv.kernel.grad is not None


@pytest.mark.parametrize(
    ("stride", "out_stride", "kernel_size"), [(1, 1, 3), (1, 2, 2), (1, 2, 3), (2, 4, 3), (1, 3, 5)]
)
def test_table_and_search_find_the_same_neighbours(
    monkeypatch: pytest.MonkeyPatch, stride: int, out_stride: int, kernel_size: int
) -> None:
    manager = make_tensor().manager
    assert isinstance(manager, TorchCoordinates)
    by_table = manager.neighbours(stride, out_stride, kernel_size)
    monkeypatch.setattr(sparse_coordinates, "_TABLE_CELLS", 0)
    monkeypatch.setattr(sparse_coordinates, "_TABLE_CELLS_PER_VOXEL", 0)
    assert torch.equal(manager.neighbours(stride, out_stride, kernel_size), by_table)
    inside, places = manager.coordinates(stride).tolist(), kernel_offsets(kernel_size) * stride
    row_of = {tuple(voxel): row for row, voxel in enumerate(inside)}
    for target, (item, *voxel) in enumerate(manager.coordinates(out_stride).tolist()):
        for tap, offset in enumerate(places.tolist()):
            source = (item, *[a + b for a, b in zip(voxel, offset, strict=True)])
            assert by_table[target, tap] == row_of.get(source, len(inside))


def test_kernel_maps_are_made_once_per_stride_and_kernel() -> None:
    manager = make_tensor().manager
    assert isinstance(manager, TorchCoordinates)
    kernel_map = manager.kernel_map(1, 1, 3)
    assert manager.kernel_map(1, 1, 3) is kernel_map
    assert manager.kernel_map(1, 1, 5) is not kernel_map
    assert manager.kernel_map(2, 1, 2) is manager.kernel_map(1, 2, 2).adjoint
    assert manager.kernel_map(1, 2, 2).adjoint.adjoint is manager.kernel_map(1, 2, 2)
    assert manager.coordinates(4) is manager.coordinates(4)


def test_a_level_does_not_depend_on_the_way_to_it() -> None:
    manager, other = make_tensor().manager, make_tensor().manager
    manager.coordinates(2)
    assert torch.equal(manager.coordinates(4), other.coordinates(4))


def test_transposed_without_coordinates_to_restore_says_so() -> None:
    x = make_tensor()
    with pytest.raises(AdlbenchError, match="none of stride 4 were made"):
        SparseConv(5, 5, 2, 2, transposed=True).double()(SparseTensor(x.features, x.manager, 8))


@pytest.mark.parametrize("mode", ["max", "mean", "sum"])
@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_pooling_is_over_the_voxels_that_are_there(mode: str, kernel_size: int, stride: int) -> None:
    x = make_tensor()
    y = SparsePool(mode, kernel_size, stride)(x)
    row_of = {tuple(voxel): row for row, voxel in enumerate(x.coordinates.tolist())}
    rows = []
    for item, *voxel in y.coordinates.tolist():
        places = [(item, *[a + b for a, b in zip(voxel, o, strict=True)]) for o in kernel_offsets(kernel_size).tolist()]
        around = x.features[[row_of[place] for place in places if place in row_of]]
        rows.append({"max": around.amax(0), "mean": around.mean(0), "sum": around.sum(0)}[mode])
    assert_same(y.features, torch.stack(rows), [x.features])


@pytest.mark.parametrize("mode", ["max", "mean", "sum"])
def test_global_pooling_is_per_item(mode: str) -> None:
    x = make_tensor()
    y = SparseGlobalPool(mode)(x)
    parts = [x.features[x.coordinates[:, 0] == item] for item in range(ITEMS)]
    expected = [{"max": p.amax(0), "mean": p.mean(0), "sum": p.sum(0)}[mode] for p in parts]
    assert_same(y, torch.stack(expected), [x.features])


def test_batch_norm_is_over_all_voxels_of_the_batch() -> None:
    """One big and one small item: statistics over voxels, not means of the items' statistics. PyTorch's momentum."""
    points = torch.cat([torch.rand(1, 200, 3) * 9, torch.rand(1, 200, 3) * 2])
    voxels = quantise(points, 1.0)
    features = torch.randn(len(voxels.coordinates), 6) + 3 * voxels.coordinates[:, :1]
    ours, theirs = SparseBatchNorm(6, momentum=0.02), nn.BatchNorm1d(6, momentum=0.02)
    x = sparse_tensor(features.requires_grad_(), voxels.coordinates, 2)
    out, expected = ours(x).features, theirs(features)
    torch.testing.assert_close(out, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(y.square().sum() + y[0].sum(), features) for y in (out, expected))
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.running_mean, features.mean(0) * 0.02)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x).features, theirs(features))


def test_batch_norm_of_a_single_voxel_is_finite() -> None:
    norm = SparseBatchNorm(3)
    x = sparse_tensor(torch.randn(1, 3), torch.zeros(1, 4, dtype=torch.int64), 1)
    assert norm(x).features.isfinite().all()


def test_instance_norm_is_per_item() -> None:
    x, norm = make_tensor(), SparseInstanceNorm(5).double()
    parts = [x.features[x.coordinates[:, 0] == item] for item in range(ITEMS)]
    expected = [functional.instance_norm(part.t()[None], eps=1e-8)[0].t() for part in parts]
    torch.testing.assert_close(norm(x).features, torch.cat(expected))


def test_residual_block_starts_from_its_shortcut() -> None:
    """Without its two convolutions a block is the ReLU of its input, or of the strided 1^3 convolution of it."""
    x = make_tensor(4, dtype=torch.float32)
    block = ResidualBlock(4, 4)
    nn.init.zeros_(block.norm2.weight)
    assert block.downsample is None
    torch.testing.assert_close(block(x).features, x.features.relu())
    strided = ResidualBlock(4, 6, 2)
    nn.init.zeros_(strided.norm2.weight)
    assert strided.downsample is not None
    torch.testing.assert_close(strided(x).features, strided.downsample(x).features.relu())


@pytest.mark.usefixtures("way")
def test_the_same_to_the_bit_each_time() -> None:
    x = make_tensor(dtype=torch.float32)
    net = nn.Sequential(ConvNormReLU(5, 16, 3), ResidualBlock(16, 16, 2), ConvNormReLU(16, 8, 2, 2, transposed=True))
    runs = []
    for _ in range(2):
        again = sparse_tensor(x.features, x.coordinates, ITEMS)
        out = net(again).features
        runs.append([out, *torch.autograd.grad(out.square().sum(), [x.features, *net.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.usefixtures("way")
def test_autocast_multiplies_in_half_precision_and_gives_float32_gradients() -> None:
    x, conv = make_tensor(16, dtype=torch.float32), SparseConv(16, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x).features
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), conv(x).features, atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert conv.kernel.grad is not None
    assert conv.kernel.grad.dtype == torch.float32
