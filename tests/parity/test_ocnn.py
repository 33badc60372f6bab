"""Octrees, their convolution and pooling against O-CNN's own package, where it is installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adlbench.methods.nn.kernel_layouts import from_library, to_library
from adlbench.methods.nn.octree import Octree, build_octree
from adlbench.methods.nn.sparse_conv import SparseConv, SparsePool
from adlbench.methods.nn.sparse_tensor import SparseTensor

ocnn = pytest.importorskip("ocnn")

DEPTH, FULL = 5, 2


def both(*, siblings: bool) -> tuple[Octree, object]:
    points = torch.rand(1, 300, 3, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    theirs = ocnn.octree.Octree(DEPTH, FULL)
    theirs.build_octree(ocnn.octree.Points(points[0]))
    theirs.construct_all_neigh()
    return build_octree(points, DEPTH, FULL, empty_siblings=siblings)[0], theirs


def their_rows(ours: Octree, theirs: object, depth: int, *, siblings: bool) -> Tensor:
    """int64 [N]: their row for each of ours; they are in Morton order."""
    x, y, z, _ = theirs.xyzb(depth, nempty=not siblings)  # type: ignore[attr-defined]
    order = ((x.long() * 2**depth + y) * 2**depth + z).argsort()
    stride = 2 ** (DEPTH - depth)
    assert torch.equal(torch.stack([x, y, z], 1)[order].long() * stride, ours.coordinates(stride)[:, 1:])
    return order


@pytest.mark.parametrize("siblings", [True, False])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (2, 2)])
def test_convolution(siblings: bool, kernel_size: int, stride: int) -> None:
    ours, theirs = both(siblings=siblings)
    rows = their_rows(ours, theirs, DEPTH, siblings=siblings)
    out_rows = their_rows(ours, theirs, DEPTH - (stride - 1), siblings=siblings)
    conv = SparseConv(3, 4, kernel_size, stride).double()
    peer = ocnn.nn.OctreeConv(3, 4, [kernel_size], stride, nempty=not siblings).double()
    with torch.no_grad():
        peer.weights.copy_(to_library(conv.kernel, "ocnn"))
    features = torch.randn(len(rows), 3, dtype=torch.float64)
    x = features.clone().requires_grad_()
    y = features.new_empty(features.shape).index_copy(0, rows, features).requires_grad_()
    out, expected = conv(SparseTensor(x, ours)).features, peer(y, theirs, DEPTH)[out_rows]
    torch.testing.assert_close(out, expected)
    pull = torch.randn_like(out)
    (a, b), (c, d) = (
        torch.autograd.grad(out, [x, conv.kernel], pull),
        torch.autograd.grad(expected, [y, peer.weights], pull),
    )
    torch.testing.assert_close(a, c[rows])
    torch.testing.assert_close(b, from_library(d, "ocnn"))


@pytest.mark.parametrize("siblings", [True, False])
def test_max_pooling(siblings: bool) -> None:
    ours, theirs = both(siblings=siblings)
    rows = their_rows(ours, theirs, DEPTH, siblings=siblings)
    out_rows = their_rows(ours, theirs, DEPTH - 1, siblings=siblings)
    features = torch.randn(len(rows), 3)
    peer = ocnn.nn.octree_max_pool(
        torch.empty_like(features).index_copy(0, rows, features), theirs, DEPTH, not siblings
    )
    torch.testing.assert_close(SparsePool("max", 2, 2)(SparseTensor(features, ours)).features, peer[out_rows])
