"""Quantisation: from points to voxels and back. The pitfalls of sparse networks begin here."""

from __future__ import annotations

import pytest
import torch

from adlbench.benchmark.api import AdlbenchError, DataError
from adlbench.methods.nn.sparse_tensor import Box, cat, quantise, resolve_backend, sparse_tensor


def random_clouds(count: int = 3, points: int = 200, size: float = 4.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, points, 3, generator=generator) - 0.5) * size


def test_voxels_are_the_floor_of_the_points_with_the_item_first() -> None:
    points = torch.tensor([[[0.05, 0.19, -0.01], [0.31, 0.0, 0.2]], [[-0.25, 0.5, 0.1], [-0.21, 0.59, 0.1]]])
    voxels = quantise(points, 0.1)
    assert voxels.coordinates.tolist() == [[0, 0, 1, -1], [0, 3, 0, 2], [1, -3, 5, 1]]
    assert voxels.point_to_voxel.tolist() == [[0, 1], [2, 2]]
    assert voxels.counts.tolist() == [1, 1, 2]


def test_equals_a_set_of_tuples() -> None:
    points = random_clouds()
    voxels = quantise(points, 0.3)
    expected = {
        (item, *(int(v) for v in torch.floor(point / 0.3))) for item, cloud in enumerate(points) for point in cloud
    }
    assert [tuple(row) for row in voxels.coordinates.tolist()] == sorted(expected)


def test_every_point_is_in_the_voxel_that_it_is_mapped_to() -> None:
    points = random_clouds()
    voxels = quantise(points, 0.25)
    own = voxels.to_points(voxels.coordinates)  # [B, P, 4]
    assert (own[..., 0] == torch.arange(3)[:, None]).all()
    assert torch.equal(own[..., 1:], torch.floor(points / 0.25).long())


def test_items_never_share_a_voxel() -> None:
    cloud = random_clouds(1)
    voxels = quantise(cloud.repeat(2, 1, 1), 0.5)
    first, second = voxels.coordinates.chunk(2)
    assert torch.equal(first[:, 1:], second[:, 1:])
    assert set(first[:, 0].tolist()) == {0}
    assert set(second[:, 0].tolist()) == {1}


def test_features_that_meet_in_a_voxel_are_averaged() -> None:
    points, values = random_clouds(), torch.randn(3, 200, 5, generator=torch.Generator().manual_seed(1))
    voxels = quantise(points, 1.0)
    averages = voxels.average(values)
    for row, average in enumerate(averages):
        torch.testing.assert_close(average, values[voxels.point_to_voxel == row].mean(0))


def test_labels_that_meet_in_a_voxel_are_ignored_unless_they_agree() -> None:
    points = torch.tensor([[[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [1.1, 0.0, 0.0], [1.2, 0.0, 0.0], [2.5, 0.0, 0.0]]])
    voxels = quantise(points, 1.0)
    assert voxels.labels(torch.tensor([[3, 4, 2, 2, 0]])).tolist() == [-100, 2, 0]
    assert voxels.labels(torch.tensor([[4, 3, 2, 2, 0]]), ignore_label=255).tolist() == [255, 2, 0]  # no first wins


def test_predictions_are_for_points_not_voxels() -> None:
    """A crowded and a lonely voxel: accuracy over points weighs them by their points."""
    points = torch.cat([torch.full((9, 3), 0.5), torch.full((1, 3), 1.5)])[None]
    voxels = quantise(points, 1.0)
    right = voxels.to_points(torch.tensor([False, True])).float().mean()
    assert right == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_points_that_are_not_finite_are_refused(bad: float) -> None:
    points = random_clouds(1)
    points[0, 7, 1] = bad
    with pytest.raises(DataError, match="not finite"):
        quantise(points, 0.1)


def test_outliers_that_overflow_the_numbering_are_refused() -> None:
    points = random_clouds(1)
    points[0, 0] = 1e9
    with pytest.raises(DataError, match="raise voxel_size or remove outliers"):
        quantise(points, 0.1)


def test_box_numbers_voxels_in_their_order_and_back() -> None:
    box = Box.around([-2, 0, 5], [1, 3, 6], below=1, above=2)
    assert box.size == (7, 7, 5)
    coordinates = torch.cartesian_prod(torch.arange(2), torch.arange(-3, 4), torch.arange(-1, 6), torch.arange(4, 9))
    keys = box.encode(coordinates[:, 0], coordinates[:, 1:])
    assert torch.equal(keys, torch.arange(2 * 7 * 7 * 5))
    assert torch.equal(box.decode(keys), coordinates)


def test_unsorted_repeated_or_misplaced_coordinates_are_refused() -> None:
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]])
    features = torch.ones(3, 1)
    sparse_tensor(features, coordinates, 2)
    with pytest.raises(DataError, match="lexicographic"):
        sparse_tensor(features, coordinates.flip(0), 2)
    with pytest.raises(DataError, match="unique"):
        sparse_tensor(features, coordinates[[0, 0, 1]], 2)
    with pytest.raises(DataError, match=r"items 0\.\.1 in a batch of 1"):
        sparse_tensor(features, coordinates, 1)
    with pytest.raises(DataError, match="without voxels"):
        sparse_tensor(features[:0], coordinates[:0], 1)


def test_cat_needs_the_same_coordinates() -> None:
    voxels = quantise(random_clouds(), 0.5)
    features = torch.ones(len(voxels.coordinates), 2)
    one, other = (sparse_tensor(features, voxels.coordinates, 3) for _ in range(2))
    assert cat(one, one.replace(features * 2)).features.shape == (len(features), 4)
    with pytest.raises(AdlbenchError, match="different coordinates"):
        cat(one, other)


def test_backend_names() -> None:
    assert resolve_backend("auto", "cpu") == resolve_backend("torch") == "torch"
    with pytest.raises(AdlbenchError, match="auto, torch, minkowski"):
        resolve_backend("spconv")
