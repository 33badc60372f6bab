"""Point operators against torch-cluster's, where it is installed (a build from source of many minutes)."""

from __future__ import annotations

import pytest
import torch

from adlbench.methods.nn.point_operators import ball_query, farthest_point_sampling, k_nearest

torch_cluster = pytest.importorskip("torch_cluster")


def cloud(points: int = 900) -> torch.Tensor:
    return torch.randn(points, 3, generator=torch.Generator().manual_seed(0))


def test_farthest_point_sampling() -> None:
    points = cloud()
    theirs = torch_cluster.fps(points, ratio=0.25, random_start=False)
    assert torch.equal(farthest_point_sampling(points[None], len(theirs))[0], theirs)


def test_k_nearest() -> None:
    points = cloud()
    queries, index = torch_cluster.knn(points, points[:100], 8)
    assert torch.equal(k_nearest(points[None], points[None, :100], 8).index[0], index.view(100, 8))
    assert torch.equal(queries.view(100, 8)[:, 0], torch.arange(100))


def test_ball_has_the_points_that_are_within_the_radius() -> None:
    points = cloud()
    queries, index = torch_cluster.radius(points, points[:50], 0.6, max_num_neighbors=900)
    ours = ball_query(points[None], points[None, :50], 0.6, 900)
    for query in range(50):
        expected = index[queries == query].sort().values
        assert torch.equal(ours.index[0, query, : ours.found[0, query]], expected)
