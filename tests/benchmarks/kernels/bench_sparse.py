"""Sparse convolution and pooling beside MinkowskiEngine and spconv, on the same voxels with the same channels."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from measure import Kernel, Run, installed
from torch import Tensor, nn
from torch.nn import functional

from adlbench.methods.nn.sparse_conv import SparseConv, SparsePool
from adlbench.methods.nn.sparse_tensor import SparseTensor, quantise, sparse_tensor

ITEMS, CHANNELS = 4, 32
SIZES = (5_000, 20_000, 100_000)
PEERS = {"MinkowskiEngine": 1.5, "spconv": 1.5}


def surfaces(voxels: int) -> Tensor:
    """int64 [V, 4]: the first ``voxels`` / 4 voxels of each of four ellipsoids; a voxel has about 12 neighbours of 27."""
    each = voxels // ITEMS
    radius = (each / 8.0) ** 0.5 + 4
    directions = torch.randn(1, each * 40, 3, generator=torch.Generator().manual_seed(0))
    points = functional.normalize(directions, dim=-1) * torch.tensor([1.0, 0.95, 0.9]) * radius + radius
    shell = quantise(points, 1.0).coordinates[:each]
    if len(shell) < each:
        raise ValueError(f"an ellipsoid of radius {radius:.0f} has {len(shell)} voxels, {each} wanted")
    item = torch.arange(ITEMS).repeat_interleave(each)
    return torch.cat([item[:, None], shell[:, 1:].repeat(ITEMS, 1)], dim=1)


def forward_backward(layer: Callable[[Tensor], Tensor], features: Tensor, parameters: list[nn.Parameter]) -> None:
    out = layer(features)
    torch.autograd.grad(out, [features, *parameters], torch.ones_like(out))


def minkowski_layer(make: Callable[[Any], nn.Module], coordinates: Tensor, *, keep_maps: bool) -> Run:
    engine = importlib.import_module("adlbench.methods.nn.minkowski").minkowski_engine()
    layer, integers = make(engine), coordinates.int()
    features = torch.randn(len(coordinates), CHANNELS, requires_grad=True)
    tensor = engine.SparseTensor(features, integers)
    manager, key = tensor.coordinate_manager, tensor.coordinate_map_key

    def call(x: Tensor) -> Tensor:
        if keep_maps:
            return layer(engine.SparseTensor(x, coordinate_map_key=key, coordinate_manager=manager)).F
        return layer(engine.SparseTensor(x, integers)).F

    return lambda: forward_backward(call, features, list(layer.parameters()))


def spconv_layer(make: Callable[[Any], nn.Module], coordinates: Tensor, *, keep_maps: bool) -> Run:
    spconv = importlib.import_module("spconv.pytorch")
    importlib.import_module("spconv.pytorch.ops").get_current_stream = lambda: 0  # its backward asks for a CUDA stream
    layer, indices = make(spconv), coordinates.int().contiguous()
    features = torch.randn(len(coordinates), CHANNELS, requires_grad=True)
    shape = [int(side) + 1 for side in indices[:, 1:].amax(0)]
    kept = spconv.SparseConvTensor(features, indices, shape, ITEMS)
    layer(kept)  # fills its dictionary of index pairs

    def call(x: Tensor) -> Tensor:
        if keep_maps:
            return layer(kept.replace_feature(x)).features
        return layer(spconv.SparseConvTensor(x, indices, shape, ITEMS)).features

    return lambda: forward_backward(call, features, list(layer.parameters()))


def own_layer(layer: nn.Module, coordinates: Tensor, *, keep_maps: bool, halves: bool) -> Run:
    features = torch.randn(len(coordinates), CHANNELS, dtype=torch.bfloat16 if halves else None, requires_grad=True)
    manager = sparse_tensor(features, coordinates, ITEMS).manager

    def call(x: Tensor) -> Tensor:
        made: SparseTensor = SparseTensor(x, manager) if keep_maps else sparse_tensor(x, coordinates, ITEMS)
        with torch.autocast("cpu", torch.bfloat16, enabled=halves):
            return layer(made).features

    return lambda: forward_backward(call, features, list(layer.parameters()))


def beside(
    own: Callable[[], nn.Module],
    minkowski: Callable[[Any], nn.Module],
    spconv: Callable[[Any], nn.Module],
    *,
    keep_maps: bool,
    halves: bool = False,
) -> Callable[[int], Mapping[str, Run]]:
    """``halves``: our features are bfloat16; the peers know float32 only."""

    def make(size: int) -> Mapping[str, Run]:
        coordinates = surfaces(size)
        runs = {"own": own_layer(own(), coordinates, keep_maps=keep_maps, halves=halves)}
        if installed("MinkowskiEngine"):
            runs["MinkowskiEngine"] = minkowski_layer(minkowski, coordinates, keep_maps=keep_maps)
        if installed("spconv"):
            runs["spconv"] = spconv_layer(spconv, coordinates, keep_maps=keep_maps)
        return runs

    return make


def submanifold(*, keep_maps: bool, halves: bool = False) -> Callable[[int], Mapping[str, Run]]:
    return beside(
        lambda: SparseConv(CHANNELS, CHANNELS, 3),
        lambda engine: engine.MinkowskiConvolution(CHANNELS, CHANNELS, 3, dimension=3),
        lambda spconv: spconv.SubMConv3d(CHANNELS, CHANNELS, 3, bias=False, indice_key="map"),
        keep_maps=keep_maps,
        halves=halves,
    )


def down_and_up(*, keep_maps: bool, halves: bool = False) -> Callable[[int], Mapping[str, Run]]:
    def minkowski(engine: Any) -> nn.Module:
        return nn.Sequential(
            engine.MinkowskiConvolution(CHANNELS, CHANNELS, 2, 2, dimension=3),
            engine.MinkowskiConvolutionTranspose(CHANNELS, CHANNELS, 2, 2, dimension=3),
        )

    def spconv(module: Any) -> nn.Module:
        return module.SparseSequential(
            module.SparseConv3d(CHANNELS, CHANNELS, 2, 2, bias=False, indice_key="down"),
            module.SparseInverseConv3d(CHANNELS, CHANNELS, 2, bias=False, indice_key="down"),
        )

    return beside(
        lambda: nn.Sequential(
            SparseConv(CHANNELS, CHANNELS, 2, 2), SparseConv(CHANNELS, CHANNELS, 2, 2, transposed=True)
        ),
        minkowski,
        spconv,
        keep_maps=keep_maps,
        halves=halves,
    )


def max_pool(*, keep_maps: bool) -> Callable[[int], Mapping[str, Run]]:
    return beside(
        lambda: SparsePool("max", 2, 2),
        lambda engine: engine.MinkowskiMaxPooling(2, 2, dimension=3),
        lambda spconv: spconv.SparseMaxPool3d(2, 2, indice_key="pool"),
        keep_maps=keep_maps,
    )


WHAT = f"{CHANNELS} channels, forward + backward"
HALVES = "own in bfloat16"  # beside peers in float32
KERNELS = [
    Kernel(f"sparse convolution 3^3, {WHAT}, maps kept", SIZES, "voxels", submanifold(keep_maps=True), PEERS),
    Kernel(f"sparse convolution 3^3, {WHAT}, maps made", SIZES, "voxels", submanifold(keep_maps=False), PEERS),
    Kernel(
        f"sparse strided 2^3 and transposed, {WHAT}, maps kept", SIZES, "voxels", down_and_up(keep_maps=True), PEERS
    ),
    Kernel(
        f"sparse strided 2^3 and transposed, {WHAT}, maps made", SIZES, "voxels", down_and_up(keep_maps=False), PEERS
    ),
    Kernel(
        f"sparse convolution 3^3, {WHAT}, maps kept, {HALVES}",
        SIZES,
        "voxels",
        submanifold(keep_maps=True, halves=True),
        PEERS,
    ),
    Kernel(
        f"sparse strided 2^3 and transposed, {WHAT}, maps kept, {HALVES}",
        SIZES,
        "voxels",
        down_and_up(keep_maps=True, halves=True),
        PEERS,
    ),
    Kernel(f"sparse max pooling 2^3, {WHAT}, maps made", SIZES, "voxels", max_pool(keep_maps=False), PEERS),
]
