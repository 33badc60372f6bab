"""Sparse convolutions against spconv's on the CPU, where it is installed (``pip install spconv``): values and gradients."""

from __future__ import annotations

import pytest
import torch

from adlbench.methods.nn.kernel_layouts import from_library, to_library
from adlbench.methods.nn.sparse_conv import SparseConv, SparsePool
from adlbench.methods.nn.sparse_tensor import Voxels, quantise, sparse_tensor

spconv = pytest.importorskip("spconv.pytorch")

ITEMS, SIDE, INPUTS, OUTPUTS = 2, 12, 5, 7


@pytest.fixture(autouse=True)
def _no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backward on the CPU asks for a CUDA stream that it does not use."""
    monkeypatch.setattr("spconv.pytorch.ops.get_current_stream", lambda: 0)


def voxels() -> Voxels:
    return quantise(torch.rand(ITEMS, 250, 3, generator=torch.Generator().manual_seed(0)) * SIDE, 1.0)


def rows_in_order(indices: torch.Tensor) -> torch.Tensor:
    keys = indices.long()
    return (((keys[:, 0] * 64 + keys[:, 1]) * 64 + keys[:, 2]) * 64 + keys[:, 3]).argsort()


@pytest.mark.parametrize("kind", ["submanifold", "strided", "strided and back"])
def test_convolution_and_its_gradients(kind: str) -> None:
    torch.manual_seed(0)
    found = voxels()
    features = torch.randn(len(found.coordinates), INPUTS)
    if kind == "submanifold":
        ours: torch.nn.Module = SparseConv(INPUTS, OUTPUTS, 3)
        theirs = spconv.SubMConv3d(INPUTS, OUTPUTS, 3, bias=False)
    elif kind == "strided":
        ours, theirs = SparseConv(INPUTS, OUTPUTS, 2, 2), spconv.SparseConv3d(INPUTS, OUTPUTS, 2, 2, bias=False)
    else:
        ours = torch.nn.Sequential(SparseConv(INPUTS, 4, 2, 2), SparseConv(4, OUTPUTS, 2, 2, transposed=True))
        theirs = spconv.SparseSequential(
            spconv.SparseConv3d(INPUTS, 4, 2, 2, bias=False, indice_key="down"),
            spconv.SparseInverseConv3d(4, OUTPUTS, 2, bias=False, indice_key="down"),
        )
    kernels, weights = list(ours.parameters()), list(theirs.parameters())
    with torch.no_grad():
        for kernel, weight in zip(kernels, weights, strict=True):
            weight.copy_(to_library(kernel, "spconv"))
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    out = ours(sparse_tensor(x, found.coordinates, ITEMS))
    reference = theirs(spconv.SparseConvTensor(y, found.coordinates.int(), [SIDE] * 3, ITEMS))
    order = rows_in_order(reference.indices)
    own = out.coordinates.clone()
    own[:, 1:] //= out.stride
    assert torch.equal(reference.indices[order].long(), own)
    expected = reference.features[order]
    torch.testing.assert_close(out.features, expected, atol=1e-5, rtol=1e-5)
    pull = torch.randn(expected.shape)
    mine = torch.autograd.grad(out.features, [x, *kernels], pull)
    wanted = torch.autograd.grad(expected, [y, *weights], pull)
    torch.testing.assert_close(mine[0], wanted[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(mine[1:], wanted[1:], strict=True):
        torch.testing.assert_close(a, from_library(b, "spconv"), atol=1e-4, rtol=1e-4)


def test_max_pooling() -> None:
    found = voxels()
    features = torch.rand(len(found.coordinates), INPUTS)  # positive: spconv's maximum on the CPU begins at zero
    out = SparsePool("max", 2, 2)(sparse_tensor(features, found.coordinates, ITEMS))
    reference = spconv.SparseMaxPool3d(2, 2)(
        spconv.SparseConvTensor(features, found.coordinates.int(), [SIDE] * 3, ITEMS)
    )
    torch.testing.assert_close(out.features, reference.features[rows_in_order(reference.indices)])
