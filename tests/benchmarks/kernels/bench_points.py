"""Point operators beside torch-cluster's and beside chunked distances, the usual way in plain torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch
from measure import Kernel, Run, installed
from torch import Tensor

from adlbench.methods.nn.point_operators import ball_query, farthest_point_sampling, interpolate, k_nearest

SIZES = (1_024, 4_096, 16_384)
NEIGHBOURS, RADIUS, CHUNK = 32, 0.15, 1024


def surface(points: int) -> Tensor:
    """[1, N, 3] on the unit sphere: where networks meet points, they lie on surfaces."""
    directions = torch.randn(1, points, 3, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(directions, dim=-1)


def sampling(size: int) -> Mapping[str, Run]:
    points, count = surface(size), size // 4
    runs: dict[str, Run] = {"own": lambda: farthest_point_sampling(points, count)}
    if installed("torch_cluster"):
        cluster = importlib.import_module("torch_cluster")
        runs["torch-cluster"] = lambda: cluster.fps(points[0], ratio=0.25, random_start=False)

    def plain() -> Tensor:
        distance, chosen = torch.full((size,), torch.inf), [0]
        for _ in range(count - 1):
            distance = torch.minimum(distance, (points[0] - points[0, chosen[-1]]).square().sum(-1))
            chosen.append(int(distance.argmax()))
        return torch.tensor(chosen)

    runs["plain torch"] = plain
    return runs


def nearest(size: int) -> Mapping[str, Run]:
    points = surface(size)
    runs: dict[str, Run] = {"own": lambda: k_nearest(points, points, 16)}
    if installed("torch_cluster"):
        cluster = importlib.import_module("torch_cluster")
        runs["torch-cluster"] = lambda: cluster.knn(points[0], points[0], 16)
    runs["cdist + topk"] = lambda: [
        torch.cdist(part, points[0]).topk(16, dim=1, largest=False) for part in points[0].split(CHUNK)
    ]
    return runs


def balls(size: int) -> Mapping[str, Run]:
    points = surface(size)
    queries = points[:, : size // 4]
    runs: dict[str, Run] = {"own": lambda: ball_query(points, queries, RADIUS, NEIGHBOURS)}
    if installed("torch_cluster"):
        cluster = importlib.import_module("torch_cluster")
        runs["torch-cluster"] = lambda: cluster.radius(points[0], queries[0], RADIUS, max_num_neighbors=NEIGHBOURS)

    def plain() -> list[Tensor]:  # as PointNet++'s port to PyTorch: indices outside of the ball sort to the end
        found = []
        for part in queries[0].split(CHUNK):
            index = torch.arange(size).expand(len(part), -1)
            outside = torch.cdist(part, points[0]) >= RADIUS
            first = index.masked_fill(outside, size).topk(NEIGHBOURS, dim=1, largest=False, sorted=True).values
            found.append(torch.where(first == size, first[:, :1], first))
        return found

    runs["cdist + topk"] = plain
    return runs


def interpolation(size: int) -> Mapping[str, Run]:
    points = surface(size)
    coarse = points[:, : size // 4].contiguous()
    features = torch.randn(1, size // 4, 64, requires_grad=True)

    def own() -> object:
        out = interpolate(coarse, features, points)
        return torch.autograd.grad(out, features, torch.ones_like(out))

    def plain() -> object:
        parts = []
        for part in points[0].split(CHUNK):
            distance, index = torch.cdist(part, coarse[0]).square().topk(3, dim=1, largest=False)
            weight = distance.clamp(min=1e-10).reciprocal()
            weight = weight / weight.sum(1, keepdim=True)
            parts.append((features[0][index] * weight[..., None]).sum(1))
        out = torch.cat(parts)
        return torch.autograd.grad(out, features, torch.ones_like(out))

    return {"own": own, "cdist + topk": plain}


KERNELS = [
    Kernel(
        "farthest point sampling, a quarter of the points", SIZES, "points", sampling,
        {"torch-cluster": 1.0, "plain torch": 1.0},
    ),
    Kernel("16 nearest neighbours", SIZES, "points", nearest, {"torch-cluster": 1.0, "cdist + topk": 1.0}),
    Kernel(
        f"ball query, radius {RADIUS}, first {NEIGHBOURS}, a quarter of the points", SIZES, "points", balls,
        {"torch-cluster": 1.0, "cdist + topk": 1.0},
    ),
    Kernel(
        "three-nearest interpolation, 64 channels, forward + backward", SIZES, "points", interpolation,
        {"cdist + topk": 1.0},
    ),
]  # fmt: skip
