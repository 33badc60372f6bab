"""The torch backend of sparse convolutions against MinkowskiEngine, where it is installed (README of MinkowskiEngine 0.5)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from adlbench.methods.classification.sparse_resnet import SparseResNetNetwork
from adlbench.methods.nn import minkowski
from adlbench.methods.nn.sparse_conv import SparseBatchNorm, SparseConv, SparseInstanceNorm, SparsePool
from adlbench.methods.nn.sparse_tensor import Voxels, quantise, resolve_backend, sparse_tensor
from adlbench.methods.segmentation.minkunet import MinkUNetNetwork

if importlib.util.find_spec("MinkowskiEngine") is None:
    pytest.skip("MinkowskiEngine is not installed", allow_module_level=True)
ME = minkowski.minkowski_engine()

ITEMS, CHANNELS = 3, 5


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """MinkowskiEngine's own objects set the number of OpenMP's threads, which is torch's, to all cores."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_backend_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    voxels, _ = make_input()
    minkowski.MinkowskiCoordinates(voxels.coordinates, ITEMS)
    assert torch.get_num_threads() == before


def make_input(points: int = 300, size: float = 12.0, dtype: torch.dtype = torch.float64) -> tuple[Voxels, Tensor]:
    generator = torch.Generator().manual_seed(0)
    voxels = quantise((torch.rand(ITEMS, points, 3, generator=generator) - 0.5) * size, 1.0)
    return voxels, torch.randn(len(voxels.coordinates), CHANNELS, generator=generator, dtype=dtype)


def in_order(coordinates: Tensor) -> Tensor:
    """The permutation that sorts coordinates [N, 4]; the two keep rows in different orders."""
    keys = coordinates.long() + 512
    return (((keys[:, 0] * 1024 + keys[:, 1]) * 1024 + keys[:, 2]) * 1024 + keys[:, 3]).argsort()


def compare(outs: list[Tensor], inputs: list[list[Tensor]], tolerance: float) -> None:
    """Values and all gradients of a fixed projection, relative to each tensor's largest entry."""
    ours, theirs = outs
    projection = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    gradients = [torch.autograd.grad(out, each, projection) for out, each in zip(outs, inputs, strict=True)]
    for a, b in [(ours, theirs), *zip(*gradients, strict=True)]:
        assert_close(a, b.view_as(a), tolerance)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    assert float((ours - theirs).abs().max()) <= tolerance * max(float(theirs.abs().max()), 1.0)


Layers = tuple[Callable[[], nn.Module], Callable[[], nn.Module]]


def convolutions(kernel_size: int, stride: int = 1, dilation: int = 1) -> Layers:
    return (
        lambda: SparseConv(CHANNELS, 7, kernel_size, stride, dilation=dilation),
        lambda: ME.MinkowskiConvolution(CHANNELS, 7, kernel_size, stride, dilation, dimension=3),
    )


LAYERS: dict[str, Layers] = {
    "submanifold 3": convolutions(3),
    "submanifold 5": convolutions(5),
    "even 2": convolutions(2),
    "strided 2": convolutions(2, 2),
    "strided 3": convolutions(3, 2),
    "strided 1": convolutions(1, 2),
    "by three": convolutions(3, 3),
    "dilated": convolutions(3, dilation=2),
    "batch norm": (lambda: SparseBatchNorm(CHANNELS), lambda: ME.MinkowskiBatchNorm(CHANNELS)),
    "instance norm": (lambda: SparseInstanceNorm(CHANNELS), lambda: ME.MinkowskiInstanceNorm(CHANNELS)),
    "max pool": (lambda: SparsePool("max", 2, 2), lambda: ME.MinkowskiMaxPooling(2, 2, dimension=3)),
    "wide max pool": (lambda: SparsePool("max", 3, 2), lambda: ME.MinkowskiMaxPooling(3, 2, dimension=3)),
    "mean pool": (lambda: SparsePool("mean", 2, 2), lambda: ME.MinkowskiAvgPooling(2, 2, dimension=3)),
    "sum pool": (lambda: SparsePool("sum", 3, 2), lambda: ME.MinkowskiSumPooling(3, 2, dimension=3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_minkowski_engines_own(name: str) -> None:
    ours, theirs = (make().double() for make in LAYERS[name])
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b.copy_(a.view_as(b))
    voxels, features = make_input()
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    out = ours(sparse_tensor(x, voxels.coordinates, ITEMS))
    reference = theirs(ME.SparseTensor(y, voxels.coordinates.int()))
    order, their_order = in_order(out.coordinates), in_order(reference.C)
    assert torch.equal(out.coordinates[order], reference.C[their_order].long())
    compare(
        [out.features[order], reference.F[their_order]],
        [[x, *ours.parameters()], [y, *theirs.parameters()]],
        1e-9,
    )


def test_transposed_convolution_equals_minkowski_engines_own() -> None:
    down, up = SparseConv(CHANNELS, 4, 2, 2).double(), SparseConv(4, 6, 2, 2, transposed=True).double()
    me_down = ME.MinkowskiConvolution(CHANNELS, 4, 2, 2, dimension=3).double()
    me_up = ME.MinkowskiConvolutionTranspose(4, 6, 2, 2, dimension=3).double()
    me_down.kernel.data.copy_(down.kernel.data)
    me_up.kernel.data.copy_(up.kernel.data)
    voxels, features = make_input()
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    out = up(down(sparse_tensor(x, voxels.coordinates, ITEMS)))
    reference = me_up(me_down(ME.SparseTensor(y, voxels.coordinates.int())))
    assert torch.equal(out.coordinates, voxels.coordinates)
    compare(
        [out.features, reference.F[in_order(reference.C)]],
        [[x, down.kernel, up.kernel], [y, me_down.kernel, me_up.kernel]],
        1e-12,
    )


def unet() -> nn.Module:
    return MinkUNetNetwork(CHANNELS, 6, (16, 24, 32, 24, 16, 12), (1, 2, 1, 1, 1, 2), stem_channels=8)


def resnet() -> nn.Module:
    return SparseResNetNetwork(CHANNELS, 6, planes=(16, 24, 32, 48), layers=(1, 2, 1, 1), stem_channels=8, dropout=0.0)


@pytest.mark.parametrize("make", [unet, resnet])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_network_is_the_same_on_both_backends(make: type[nn.Module], dtype: torch.dtype, tolerance: float) -> None:
    """The same weights, the same output; in double precision the gradients too, which single precision blurs."""
    torch.manual_seed(0)
    net = make().to(dtype)
    voxels, features = make_input(points=800, size=20.0, dtype=dtype)
    outs, inputs = [], []
    for backend in ("torch", "minkowski"):
        x = features.clone().requires_grad_()
        outs.append(net(sparse_tensor(x, voxels.coordinates, ITEMS, backend)))
        inputs.append([x, *net.parameters()])
    if dtype == torch.float64:
        compare(outs, inputs, tolerance)
    else:
        assert_close(*outs, tolerance)


def test_auto_stays_with_torch_on_the_cpu_and_minkowski_can_be_asked_for() -> None:
    assert resolve_backend("auto", "cpu") == "torch"
    assert resolve_backend("minkowski", "cpu") == "minkowski"


def test_rows_that_minkowski_engine_stores_in_another_order_are_translated() -> None:
    voxels, features = make_input()
    manager = minkowski.MinkowskiCoordinates(voxels.coordinates, ITEMS)
    expected = manager.pool(features, 1, 1, 3, "sum")
    swap = torch.randperm(len(features), generator=torch.Generator().manual_seed(2))
    other = minkowski.MinkowskiCoordinates(voxels.coordinates[swap], ITEMS)
    other._stored, other._restored = swap, swap.argsort()
    torch.testing.assert_close(other.pool(features, 1, 1, 3, "sum"), expected)
