"""Octrees against dense grids and against a slow walk down the tree."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.octree import Octree, build_octree
from adlbench.methods.nn.sparse_conv import SparseConv, SparsePool
from adlbench.methods.nn.sparse_tensor import SparseTensor, sparse_tensor

ITEMS = 2


def clouds(points: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(ITEMS, points, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def walk(points: Tensor, depth: int, full_depth: int) -> dict[int, list[tuple[int, ...]]]:
    """The nodes at each depth, cell by cell: all of them if full, else the children of those that hold a point."""
    nodes: dict[int, list[tuple[int, ...]]] = {}
    above: set[tuple[int, ...]] = set()
    for level in range(depth + 1):
        cells = ((points + 1) / 2 * 2**level).floor().long().tolist()
        held = {(item, *cell) for item, cloud in enumerate(cells) for cell in cloud}
        every = itertools.product(range(ITEMS), *[range(2**level)] * 3)
        if level <= full_depth:
            nodes[level] = sorted(every)
        else:
            nodes[level] = sorted(n for n in every if (n[0], n[1] // 2, n[2] // 2, n[3] // 2) in above)
        above = held
    return nodes


@pytest.mark.parametrize("full_depth", [0, 1, 2, 4])
def test_nodes_are_those_of_a_walk_down_the_tree(full_depth: int) -> None:
    points, depth = clouds(), 4
    octree, voxels = build_octree(points, depth, full_depth)
    for level, nodes in walk(points, depth, full_depth).items():
        stride = 2 ** (depth - level)
        found = octree.coordinates(stride)
        assert [tuple(row) for row in found.tolist()] == [(n[0], *(axis * stride for axis in n[1:])) for n in nodes]
        assert torch.equal(found[octree.is_occupied(stride)], octree.occupied.coordinates(stride))
    assert torch.equal(octree.occupied.coordinates(1), voxels.coordinates)


def full(channels: int, depth: int = 3) -> tuple[Octree, Tensor, Tensor]:
    """A full octree, features at its nodes, and the same as a dense grid [B, C, X, Y, Z]."""
    octree = build_octree(clouds(), depth, depth)[0]
    side = 2**depth
    features = torch.randn(ITEMS * side**3, channels, dtype=torch.float64, requires_grad=True)
    return octree, features, features.view(ITEMS, side, side, side, channels).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (2, 2), (3, 2)])
def test_convolution_at_full_depth_is_dense_convolution(kernel_size: int, stride: int) -> None:
    octree, features, dense = full(4)
    conv = SparseConv(4, 5, kernel_size, stride).double()
    ours = conv(SparseTensor(features, octree)).features
    weight = conv.kernel.view(*[kernel_size] * 3, 4, 5).permute(4, 3, 2, 1, 0)  # our kernel's index is (z, y, x)
    padding = 1 if kernel_size == 3 else 0
    expected = functional.conv3d(dense, weight, stride=stride, padding=padding)
    expected = expected.permute(0, 2, 3, 4, 1).reshape(-1, 5)
    torch.testing.assert_close(ours, expected)
    pull = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, [features, conv.kernel], pull),
        torch.autograd.grad(expected, [features, conv.kernel], pull),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_max_pooling_at_full_depth_is_dense_pooling() -> None:
    octree, features, dense = full(4)
    ours = SparsePool("max", 2, 2)(SparseTensor(features, octree)).features
    torch.testing.assert_close(ours, functional.max_pool3d(dense, 2).permute(0, 2, 3, 4, 1).reshape(-1, 4))


def test_convolution_reads_the_empty_siblings_and_reaches_them() -> None:
    """What OctNet and O-CNN do; without the siblings it is a sparse convolution, and other numbers."""
    points, conv = clouds(), SparseConv(3, 4, 3).double()
    octree, voxels = build_octree(points, 4)
    alone = build_octree(points, 4, empty_siblings=False)[0]
    features = torch.randn(len(voxels.coordinates), 3, dtype=torch.float64)
    with_siblings, without = conv(octree.tensor(features)), conv(alone.tensor(features))
    torch.testing.assert_close(with_siblings.features[octree.is_occupied()], without.features)
    assert with_siblings.features[~octree.is_occupied()].abs().amax() > 0
    again = conv(with_siblings.replace(with_siblings.features[:, :3]))  # now the siblings have something to say
    twice = conv(without.replace(without.features[:, :3]))
    assert not torch.allclose(again.features[octree.is_occupied()], twice.features)
    sparse = conv(sparse_tensor(features, voxels.coordinates, ITEMS))
    torch.testing.assert_close(without.features, sparse.features)


def test_pooling_gives_zero_at_nodes_without_children() -> None:
    octree, voxels = build_octree(clouds(), 4)
    pooled = SparsePool("max", 2, 2)(octree.tensor(-torch.rand(len(voxels.coordinates), 2) - 1))
    occupied = octree.is_occupied(2)
    assert (pooled.features[~occupied] == 0).all()
    assert len(pooled.features) == len(octree.coordinates(2))
    assert 0 < int(occupied.sum()) < len(occupied)


def test_down_and_up_again_restores_the_nodes_and_passes_gradcheck() -> None:
    octree, voxels = build_octree(clouds(6), 3, 1)
    down, up = SparseConv(2, 2, 2, 2).double(), SparseConv(2, 1, 2, 2, transposed=True).double()
    features = torch.randn(len(voxels.coordinates), 2, dtype=torch.float64, requires_grad=True)
    out = up(down(octree.tensor(features)))
    assert torch.equal(out.coordinates, octree.coordinates(1))
    assert torch.autograd.gradcheck(lambda x: up(down(octree.tensor(x))).features, features)


def test_one_point_and_points_at_the_border() -> None:
    octree, voxels = build_octree(torch.tensor([[[1.0, -1.0, 0.0]]]), 3, 0)
    assert voxels.coordinates.tolist() == [[0, 7, 0, 4]]
    assert [len(octree.coordinates(2**k)) for k in range(4)] == [8, 8, 8, 1]
    just_below = torch.tensor(1.0).nextafter(torch.tensor(0.0))
    for one in (
        just_below.double(),
        just_below,
        torch.tensor(1 - 1e-12, dtype=torch.float64),
    ):  # float32 adds 1 to get 2
        for depth in (0, 3, 16):
            found = build_octree(one.expand(1, 1, 3), depth, 0)[1]
            assert found.coordinates.tolist() == [[0] + 3 * [2**depth - 1]]
    for beyond in (1.1, -1.0001, 1 + 2**-23):
        with pytest.raises(DataError, match="scale the points"):
            build_octree(torch.tensor([[[beyond, 0.0, 0.0]]]), 3)
    with pytest.raises(DataError, match="features of 2 leaves of 1"):
        octree.tensor(torch.ones(2, 1))
    with pytest.raises(DataError, match="full to 4"):
        build_octree(clouds(), 3, 4)
    with pytest.raises(DataError, match="stride 3"):
        octree.coordinates(3)


@pytest.mark.parametrize("seed", range(4))
def test_random_trees_with_points_on_the_borders_of_cells_and_repeated(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randint(-8, 8, (ITEMS, 30, 3), generator=generator) / 8
    points[1, 1:] = points[1, :1]  # one item is a single point, thirty times
    octree, voxels = build_octree(points, 4, seed)
    for level, nodes in walk(points, 4, seed).items():
        stride = 2 ** (4 - level)
        assert [
            tuple(row) for row in (octree.coordinates(stride) // torch.tensor([1, stride, stride, stride])).tolist()
        ] == nodes
    assert voxels.counts[voxels.coordinates[:, 0] == 1].tolist() == [30]


def test_bfloat16_points_and_features() -> None:
    points = clouds().bfloat16()
    octree, voxels = build_octree(points, 4)
    assert torch.equal(voxels.coordinates, build_octree(points.float(), 4)[1].coordinates)
    features = torch.randn(len(voxels.coordinates), 4).bfloat16()
    conv = SparseConv(4, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = conv(octree.tensor(features)).features
    assert half.dtype == torch.bfloat16
    exact = conv(octree.tensor(features.float())).features
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)


def test_more_than_2_to_the_31_cells() -> None:
    """Opposite corners at the largest depth: 2^48 cells, of which few are nodes. More than 2^63 are refused."""
    side = 2**16
    leaves = torch.tensor([[0, 0, 0, 0], [0, side - 1, side - 1, side - 1], [1, side - 1, 0, 5]])
    octree = Octree(leaves, ITEMS, 16, 1)
    nodes = octree.coordinates(1)
    assert len(nodes) == 3 * 8
    assert torch.equal(nodes[octree.is_occupied(1)], leaves)
    assert octree.coordinates(side // 2).tolist() == [
        [item, *(axis * side // 2 for axis in corner)]
        for item in (0, 1)
        for corner in itertools.product((0, 1), repeat=3)
    ]
    conv = SparseConv(1, 1, 3)
    out = conv(octree.tensor(torch.ones(3, 1))).features[octree.is_occupied(1)]
    torch.testing.assert_close(out, conv.kernel[13].expand(3, 1) + (0 if conv.bias is None else conv.bias))
    with pytest.raises(DataError, match="at most 32,768 are possible"):
        Octree(leaves, 2**15 + 1, 16)
