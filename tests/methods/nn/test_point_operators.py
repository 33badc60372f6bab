"""Point operators against brute force written as the published kernels read, and against their known pitfalls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import point_operators
from adlbench.methods.nn.point_operators import (
    ball_query,
    farthest_point_sampling,
    group_points,
    interpolate,
    k_nearest,
)


def clouds(count: int = 2, points: int = 700, dimensions: int = 3, seed: int = 0) -> Tensor:
    """With negative coordinates; 700 points are enough for the tree."""
    return torch.rand(count, points, dimensions, generator=torch.Generator().manual_seed(seed)) * 4 - 2


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.double()[:, None] - b.double()[None]).square().sum(-1)


@pytest.fixture(params=["loops", "tree", "distances"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "loops":
        pytest.importorskip("numba")
    monkeypatch.setattr(point_operators, "_LOOP_PAIRS", 2**60 if request.param == "loops" else 0)
    monkeypatch.setattr(point_operators, "_TREE_POINTS", 1 if request.param == "tree" else 2**60)
    monkeypatch.setattr(point_operators, "_BLOCK", 5_000)  # several blocks


# -------------------------------------------------------------------------------------------------------------- sampling
def sample_slowly(cloud: Tensor, count: int, start: int = 0) -> list[int]:
    """tf_sampling_g.cu: the farthest from the set so far, beginning at index 0."""
    chosen, nearest = [start], [math.inf] * len(cloud)
    values = cloud.double().tolist()
    while len(chosen) < count:
        nearest = [min(d, math.dist(p, values[chosen[-1]]) ** 2) for d, p in zip(nearest, values, strict=True)]
        chosen.append(max(range(len(values)), key=lambda i: nearest[i]))
    return chosen


@pytest.fixture(params=["numba", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(point_operators, "compiled", lambda like: False)
    else:
        pytest.importorskip("numba")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_farthest_points_are_those_of_the_definition(dimensions: int) -> None:
    points = clouds(points=90, dimensions=dimensions).double()
    expected = [sample_slowly(cloud, 30) for cloud in points]
    assert farthest_point_sampling(points, 30).tolist() == expected
    assert farthest_point_sampling(points, 10, start=7).tolist() == [sample_slowly(cloud, 10, 7) for cloud in points]


@pytest.mark.usefixtures("backend")
def test_sampling_begins_at_point_0_and_is_nested() -> None:
    """Same weights, same output: a random start, as some ports have, changes predictions in the fourth digit."""
    points = clouds()
    few, many = farthest_point_sampling(points, 16), farthest_point_sampling(points, 64)
    assert (few[:, 0] == 0).all()
    assert torch.equal(many[:, :16], few)


@pytest.mark.usefixtures("backend")
def test_sampling_many_clouds_is_sampling_each(monkeypatch: pytest.MonkeyPatch) -> None:
    points = clouds(5, 100)
    alone = torch.cat([farthest_point_sampling(cloud[None], 20) for cloud in points])
    assert torch.equal(farthest_point_sampling(points, 20), alone)
    monkeypatch.setattr(point_operators, "_CACHED_POINTS", 200)
    assert torch.equal(farthest_point_sampling(points, 20), alone)


@pytest.mark.usefixtures("backend")
def test_sampling_over_several_blocks_in_both_precisions() -> None:
    points = clouds(1, 700)
    expected = sample_slowly(points[0], 40)
    assert farthest_point_sampling(points, 40).tolist() == [expected]
    assert farthest_point_sampling(points.double(), 40).tolist() == [expected]


@pytest.mark.usefixtures("backend")
def test_duplicates_are_chosen_last_and_then_point_0_repeats() -> None:
    points = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 2, 0]])[None]
    assert farthest_point_sampling(points, 5).tolist() == [[0, 4, 2, 0, 0]]
    assert farthest_point_sampling(points[:, :1], 3).tolist() == [[0, 0, 0]]
    assert farthest_point_sampling(points, 0).shape == (1, 0)


# ------------------------------------------------------------------------------------------------------------- searching
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("k", [1, 9])
def test_nearest_neighbours_are_those_of_all_distances(k: int) -> None:
    points, queries = clouds(), clouds(points=150, seed=1)
    index, distance = k_nearest(points, queries, k)
    for cloud in range(2):
        expected, wanted = squared(queries[cloud], points[cloud]).topk(k, dim=1, largest=False)
        assert torch.equal(index[cloud], wanted)
        torch.testing.assert_close(distance[cloud], expected.float())


@pytest.mark.usefixtures("way")
def test_neighbours_far_from_the_origin_are_right() -> None:
    """|a|^2 - 2ab + |b|^2 in single precision would be wrong by more than these distances."""
    points = clouds(1) * 0.01 + 300.0
    index, distance = k_nearest(points, points, 2)
    assert torch.equal(index[0, :, 0], torch.arange(points.shape[1]))
    assert (distance[..., 0] == 0).all()
    expected = squared(points[0], points[0]).fill_diagonal_(math.inf).amin(1)
    torch.testing.assert_close(distance[0, :, 1], expected.float())


def test_neighbours_in_many_dimensions() -> None:
    points = clouds(dimensions=40)
    index, distance = k_nearest(points, points, 5)
    expected = squared(points[1], points[1]).topk(5, dim=1, largest=False)
    assert torch.equal(index[1], expected.indices)
    torch.testing.assert_close(distance[1], expected.values.float())


def ball_slowly(points: Tensor, queries: Tensor, radius: float, count: int) -> tuple[list[list[int]], list[int]]:
    """tf_grouping_g.cu: a loop over the points in index order, which stops at ``count`` and pads with the first hit."""
    rows, found = [], []
    inside = squared(queries, points) < radius**2
    for row in inside.tolist():
        hits = [index for index, hit in enumerate(row) if hit][:count]
        found.append(len(hits))
        rows.append(hits + [hits[0] if hits else 0] * (count - len(hits)))
    return rows, found


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("radius", "count"), [(0.4, 8), (0.9, 4), (0.05, 8), (9.0, 16)])
def test_a_ball_has_the_first_points_in_index_order(radius: float, count: int) -> None:
    points, queries = clouds(), clouds(points=80, seed=1)
    index, found = ball_query(points, queries, radius, count)
    for cloud in range(2):
        rows, hits = ball_slowly(points[cloud], queries[cloud], radius, count)
        assert index[cloud].tolist() == rows
        assert found[cloud].tolist() == hits


@pytest.mark.usefixtures("way")
def test_a_ball_is_open_and_not_sorted_by_distance() -> None:
    points = torch.tensor([[0.75, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [0.25, 0, 0], [-1.0, 0, 0]])[None]
    index, found = ball_query(points, torch.zeros(1, 1, 3), 1.0, 4)
    assert index.tolist() == [[[0, 1, 3, 0]]]  # neither 2 nor 4, at distance 1 exactly; 0 again at the end
    assert found.tolist() == [[3]]
    assert ball_query(points, torch.zeros(1, 1, 3), 1.0, 2).index.tolist() == [[[0, 1]]]  # not the nearest two, 3 and 1


@pytest.mark.usefixtures("way")
def test_an_empty_ball_says_so() -> None:
    index, found = ball_query(clouds(), torch.full((2, 1, 3), 50.0), 1.0, 3)
    assert index.tolist() == [[[0, 0, 0]]] * 2
    assert found.tolist() == [[0]] * 2


@pytest.mark.usefixtures("way")
@pytest.mark.usefixtures("backend")
def test_clouds_of_unequal_sizes() -> None:
    """Padding is never found, whatever stands in it."""
    points, lengths = clouds(3), torch.tensor([700, 20, 1])
    for cloud, size in enumerate(lengths.tolist()):
        points[cloud, size:] = 0.0
    queries = torch.zeros(3, 4, 3)
    chosen = farthest_point_sampling(points, 6, lengths=lengths)
    balls = ball_query(points, queries, 1.5, 6, lengths)
    nearest = k_nearest(points, queries, 1, lengths)
    for cloud, size in enumerate(lengths.tolist()):
        own = points[cloud : cloud + 1, :size]
        assert torch.equal(chosen[cloud], farthest_point_sampling(own, 6)[0])
        assert torch.equal(balls.index[cloud], ball_query(own, queries[:1], 1.5, 6).index[0])
        assert torch.equal(nearest.index[cloud], k_nearest(own, queries[:1], 1).index[0])


# ---------------------------------------------------------------------------------------------------------- interpolating
@pytest.mark.usefixtures("way")
def test_interpolation_weighs_by_inverse_squared_distance() -> None:
    """Ports that take the root of what ``three_nn`` returns weigh by 1 / d instead."""
    points = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, -4.0], [50, 0, 0]])[None]
    features = torch.tensor([[1.0], [10.0], [100.0], [1e6]])[None]
    expected = (1.0 / 1 + 10.0 / 4 + 100.0 / 16) / (1 / 1 + 1 / 4 + 1 / 16)
    assert interpolate(points, features, torch.zeros(1, 1, 3)).item() == pytest.approx(expected)
    torch.testing.assert_close(interpolate(points, features, points)[0, :3], features[0, :3], rtol=1e-4, atol=1e-4)


def test_interpolation_from_fewer_than_three_points_uses_them_all() -> None:
    points, features = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]), torch.tensor([[[2.0], [4.0]]])
    assert interpolate(points, features, torch.zeros(1, 1, 3)).item() == pytest.approx(3.0)
    assert interpolate(points[:, :1], features[:, :1], torch.ones(1, 1, 3)).item() == pytest.approx(2.0)


@pytest.mark.usefixtures("way")
def test_each_cloud_of_a_batch_is_interpolated_as_if_alone() -> None:
    """A cloud of two points, or of one, takes no neighbour from the others; padding has no say, duplicates share."""
    points, features, queries = clouds(4, 40), torch.randn(4, 40, 5), clouds(4, 9, seed=1)
    points[3, 1] = points[3, 0]
    lengths = torch.tensor([40, 2, 1, 3])
    together = interpolate(points, features, queries, lengths=lengths)
    for cloud, size in enumerate(lengths.tolist()):
        square = squared(queries[cloud], points[cloud, :size])
        nearest = square.topk(min(3, size), dim=1, largest=False)
        weight = 1 / nearest.values.clamp(min=1e-10)
        own = features[cloud].double()[nearest.indices]
        wanted = (own * (weight / weight.sum(1, keepdim=True))[..., None]).sum(1)
        torch.testing.assert_close(together[cloud].double(), wanted, atol=1e-5, rtol=1e-5)


def test_gradients_of_grouping_and_interpolating() -> None:
    points, queries = clouds(points=12).double(), clouds(points=5, seed=1).double()
    features = torch.randn(2, 12, 3, dtype=torch.float64, requires_grad=True)
    index = ball_query(points, queries, 2.0, 4).index
    assert torch.autograd.gradcheck(lambda x: group_points(x, index), features)
    assert torch.autograd.gradcheck(lambda x: interpolate(points, x, queries), features)
    assert torch.autograd.gradcheck(lambda x: interpolate(points, x, queries, lengths=torch.tensor([2, 12])), features)
    assert torch.equal(group_points(features, index)[1, 2, 3], features[1, index[1, 2, 3]])


# ------------------------------------------------------------------------------------------------------------- edge cases
def test_half_precision_is_searched_in_single() -> None:
    """The answer is that for the rounded positions: distances are not rounded to bfloat16's three digits."""
    points = clouds(points=60).bfloat16()
    assert torch.equal(farthest_point_sampling(points, 9), farthest_point_sampling(points.float(), 9))
    assert torch.equal(k_nearest(points, points, 3).index, k_nearest(points.float(), points.float(), 3).index)
    assert torch.equal(
        ball_query(points, points, 1.0, 3).index, ball_query(points.float(), points.float(), 1.0, 3).index
    )
    features = torch.randn(2, 60, 4)
    half = interpolate(points, features.bfloat16(), points.flip(1))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(
        half.float(), interpolate(points.float(), features, points.float().flip(1)), atol=0.05, rtol=0.02
    )


def test_more_than_2_to_the_31_rows() -> None:
    """Rows of three clouds of 2^30 points that share one row of memory: a number cut to 32 bits would be out of range."""
    features = torch.tensor([[[1.0, 2.0]]]).expand(3, 2**30, 2)
    index = torch.tensor([[0, 2**30 - 1]]).expand(3, 2)
    assert torch.equal(group_points(features, index), torch.tensor([1.0, 2.0]).expand(3, 2, 2))
    with pytest.raises(DataError, match="from 1 to 1073741824 in clouds of 1073741824"):
        group_points(features, index + 1)
    points = clouds()
    for found in (
        farthest_point_sampling(points, 5),
        *ball_query(points, points, 0.5, 3),
        k_nearest(points, points, 3).index,
    ):
        assert found.dtype == torch.int64


@pytest.mark.usefixtures("way")
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("seed", range(8))
def test_random_clouds_of_unequal_sizes_on_a_lattice(seed: int) -> None:
    """Many points coincide, lie at equal distances, or on the border of a ball; distances are exact in float32."""
    generator = torch.Generator().manual_seed(seed)

    def random(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    count, most, dimensions = random(1, 4), random(1, 60), random(1, 8)
    points = torch.randint(-3, 4, (count, most, dimensions), generator=generator) / 2
    queries = torch.randint(-3, 4, (count, random(1, 12), dimensions), generator=generator) / 2
    lengths = torch.randint(1, most + 1, (count,), generator=generator)
    wanted, radius, k = random(1, 9), random(1, 6) / 2, random(1, int(lengths.min()) + 1)
    chosen = farthest_point_sampling(points, wanted, lengths=lengths)
    nearest = k_nearest(points, queries, k, lengths)
    index, found = ball_query(points, queries, radius, wanted, lengths)
    for cloud, size in enumerate(lengths.tolist()):
        own = points[cloud, :size]
        assert chosen[cloud].tolist() == sample_slowly(own, wanted)
        square = squared(queries[cloud], own)
        expected = square.topk(k, dim=1, largest=False).values
        torch.testing.assert_close(square.gather(1, nearest.index[cloud]), expected)
        assert all(len(set(row)) == k for row in nearest.index[cloud].tolist())
        rows, hits = ball_slowly(own, queries[cloud], radius, wanted)
        assert index[cloud].tolist() == rows
        assert found[cloud].tolist() == hits


@pytest.mark.usefixtures("way")
def test_an_endless_ball_holds_all_and_one_too_small_is_refused() -> None:
    points = clouds()
    for radius in (math.inf, 1e30):
        index, found = ball_query(points, points[:, :3], radius, 5)
        assert index[1, 2].tolist() == [0, 1, 2, 3, 4]
        assert (found == 5).all()
    with pytest.raises(DataError, match="1e-30, too small"):
        ball_query(points, points, 1e-30, 5)
    assert (ball_query(points.double() * 1e-25, points.double() * 1e-25, 1e-30, 5).found == 1).all()


def test_no_channels_and_no_clouds() -> None:
    points = clouds()
    assert interpolate(points, points[..., :0], points).shape == (2, 700, 0)
    assert group_points(points[..., :0], torch.zeros(2, 4, dtype=torch.int64)).shape == (2, 4, 0)
    assert group_points(points[:0], torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 4, 3)


def test_no_queries_give_empty_results() -> None:
    points, none = clouds(), torch.zeros(2, 0, 3)
    assert ball_query(points, none, 1.0, 5).index.shape == (2, 0, 5)
    assert k_nearest(points, none, 5).index.shape == (2, 0, 5)
    assert interpolate(points, points, none).shape == (2, 0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: farthest_point_sampling(p[:, :0], 3), "give each at least one"),
        (lambda p: farthest_point_sampling(p, 3, start=700), "start at point 700"),
        (lambda p: farthest_point_sampling(p[0], 3), r"\[clouds, points, dimensions\]"),
        (lambda p: farthest_point_sampling(p * math.nan, 3), "not finite"),
        (lambda p: k_nearest(p[:, :4], p, 5), "5 neighbours wanted in a cloud of 4"),
        (lambda p: k_nearest(p, p[:1], 5), "queries of shape"),
        (lambda p: ball_query(p, p, 0.0, 5), "must be positive"),
        (lambda p: ball_query(p, p, 1.0, 5, torch.tensor([0, 3])), "clouds of \\[0, 3\\] points"),
        (lambda p: ball_query(p, p, math.nan, 5), "must be positive"),
        (lambda p: farthest_point_sampling(p, -1), "-1 points wanted"),
        (lambda p: farthest_point_sampling(p[..., :0], 3), "dimensions"),
        (lambda p: farthest_point_sampling(p, 3, lengths=torch.tensor([3])), "integers \\[2\\] are wanted"),
        (lambda p: k_nearest(p, p, 3, torch.tensor([3.0, 4.0])), "lengths torch.float32"),
        (lambda p: k_nearest(p, p * math.nan, 3), "queries hold a coordinate that is not finite"),
        (lambda p: ball_query(p[:, :9], p[:, :9] * math.inf, 1.0, 3), "queries hold a coordinate"),
        (lambda p: interpolate(p, p[:, :9], p), "features of every point"),
        (lambda p: interpolate(p, p, p, k=0), "at least one neighbour"),
        (lambda p: group_points(p, torch.tensor([[0], [-1]])), "from -1 to 0 in clouds of 700"),
        (lambda p: group_points(p, torch.tensor([[0]])), "indices of 1 clouds for the features of 2"),
    ],
)
def test_wrong_use_is_named(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(clouds())  # type: ignore[operator]
