"""Octrees beside O-CNN's own package: the same points, depth and channels."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from measure import Kernel, Run, installed
from torch import Tensor, nn

from adlbench.methods.nn.octree import build_octree
from adlbench.methods.nn.sparse_conv import SparseConv, SparsePool
from adlbench.methods.nn.sparse_tensor import SparseTensor

DEPTHS = {4_000: 5, 16_000: 6, 64_000: 7}  # points on a sphere, about two in each occupied leaf
FULL, CHANNELS = 2, 32


def sphere(points: int) -> Tensor:
    directions = torch.randn(1, points, 3, generator=torch.Generator().manual_seed(0))
    return 0.9 * torch.nn.functional.normalize(directions, dim=-1)


def built_by_ocnn(points: Tensor, depth: int) -> Any:
    ocnn = importlib.import_module("ocnn")
    octree = ocnn.octree.Octree(depth, FULL)
    octree.build_octree(ocnn.octree.Points(points[0]))
    octree.construct_all_neigh()
    return octree


def build(size: int) -> Mapping[str, Run]:
    """With the neighbours of all depths, as a network needs them."""
    points, depth = sphere(size), DEPTHS[size]

    def own() -> None:
        octree = build_octree(points, depth, FULL)[0]
        for level in range(depth - FULL + 1):
            octree.kernel_map(2**level, 2**level, 3)

    runs: dict[str, Run] = {"own": own}
    if installed("ocnn"):
        runs["ocnn"] = lambda: built_by_ocnn(points, depth)
    return runs


def forward_backward(call: Callable[[Tensor], Tensor], x: Tensor, parameters: list[nn.Parameter]) -> None:
    out = call(x)
    torch.autograd.grad(out, [x, *parameters], torch.ones_like(out))


def convolution(size: int, *, siblings: bool) -> Mapping[str, Run]:
    points, depth = sphere(size), DEPTHS[size]
    octree = build_octree(points, depth, FULL, empty_siblings=siblings)[0]
    features = torch.randn(len(octree.coordinates(1)), CHANNELS, requires_grad=True)
    conv = SparseConv(CHANNELS, CHANNELS, 3)
    runs: dict[str, Run] = {
        "own": lambda: forward_backward(
            lambda x: conv(SparseTensor(x, octree)).features, features, list(conv.parameters())
        )
    }
    if installed("ocnn"):
        theirs, peer = built_by_ocnn(points, depth), importlib.import_module("ocnn").nn.OctreeConv(
            CHANNELS, CHANNELS, [3], nempty=not siblings
        )  # fmt: skip
        runs["ocnn"] = lambda: forward_backward(lambda x: peer(x, theirs, depth), features, list(peer.parameters()))
    return runs


def pooling(size: int) -> Mapping[str, Run]:
    points, depth = sphere(size), DEPTHS[size]
    octree, pool = build_octree(points, depth, FULL)[0], SparsePool("max", 2, 2)
    features = torch.randn(len(octree.coordinates(1)), CHANNELS, requires_grad=True)
    runs: dict[str, Run] = {
        "own": lambda: forward_backward(lambda x: pool(SparseTensor(x, octree)).features, features, [])
    }
    if installed("ocnn"):
        theirs, max_pool = built_by_ocnn(points, depth), importlib.import_module("ocnn").nn.octree_max_pool
        runs["ocnn"] = lambda: forward_backward(lambda x: max_pool(x, theirs, depth), features, [])
    return runs


SIZES, PEERS = tuple(DEPTHS), {"ocnn": 1.0}
KERNELS = [
    Kernel("octree build with neighbours", SIZES, "points", build, PEERS),
    Kernel(
        f"octree convolution 3^3, {CHANNELS} channels, with empty siblings, forward + backward", SIZES, "points",
        lambda size: convolution(size, siblings=True), PEERS,
    ),
    Kernel(
        f"octree convolution 3^3, {CHANNELS} channels, occupied only, forward + backward", SIZES, "points",
        lambda size: convolution(size, siblings=False), PEERS,
    ),
    Kernel(f"octree max pooling, {CHANNELS} channels, forward + backward", SIZES, "points", pooling, PEERS),
]  # fmt: skip
