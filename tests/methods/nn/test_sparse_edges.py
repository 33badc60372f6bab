"""Sparse tensors at their edges: one point, repeated points, borders of voxels, bfloat16, and gradients of what is no product."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from adlbench.benchmark.api import AdlbenchError
from adlbench.methods.nn.sparse_conv import (
    SparseBatchNorm,
    SparseConv,
    SparseGlobalPool,
    SparseInstanceNorm,
    SparsePool,
)
from adlbench.methods.nn.sparse_tensor import SparseTensor, quantise, sparse_tensor

ROWS = torch.tensor([[0, -2, 0, 5], [0, -1, 0, 5], [0, 3, -4, 0], [2, -5, 3, 1]])  # item 1 has no voxel


def tensor(features: Tensor) -> SparseTensor:
    return sparse_tensor(features, ROWS, 3)


@pytest.mark.parametrize("seed", range(6))
def test_quantising_points_on_the_borders_of_voxels(seed: int) -> None:
    """Multiples of the voxel's size, negative ones too, each several times: floor of the quotient, as a set of tuples."""
    generator = torch.Generator().manual_seed(seed)
    size = (0.5, 0.1, 1 / 3, 0.05, 2.0, 1e-3)[seed]
    points = torch.randint(-6, 7, (3, 50, 3), generator=generator) * torch.tensor(size)
    voxels = quantise(points, size)
    expected: dict[tuple[int, ...], int] = {}
    for item, cloud in enumerate(points):
        for point in cloud:
            key = (item, *(math.floor(value) for value in (point / size).tolist()))
            expected[key] = expected.get(key, 0) + 1
    assert [tuple(row) for row in voxels.coordinates.tolist()] == sorted(expected)
    assert voxels.counts.tolist() == [expected[key] for key in sorted(expected)]


def test_one_point_and_one_point_many_times() -> None:
    point = torch.tensor([[[-0.25, 0.5, 7.0]]])
    for points in (point, point.expand(1, 9, 3), point.bfloat16()):
        voxels = quantise(points, 0.5)
        assert voxels.coordinates.tolist() == [[0, -1, 1, 14]]
        assert voxels.counts.tolist() == [points.shape[1]]
        assert voxels.point_to_voxel.tolist() == [[0] * points.shape[1]]


@pytest.mark.parametrize(
    "layer",
    [
        *(SparsePool(mode, *shape) for mode in ("max", "mean", "sum") for shape in ((2, 2), (3, 1))),
        SparseBatchNorm(2),
        SparseInstanceNorm(2),
        SparseConv(2, 3, 3, dilation=2),
        SparseConv(2, 3, 2, 2, bias=True),
    ],
    ids=repr,
)
def test_gradients_of_every_layer(layer: nn.Module) -> None:
    features = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = layer.double()
    assert torch.autograd.gradcheck(lambda x: layer(tensor(x)).features, features)


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_gradients_of_global_pooling_and_an_item_without_voxels(mode: str) -> None:
    features = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pool = SparseGlobalPool(mode)
    assert pool(tensor(features))[1].tolist() == [0.0, 0.0]
    assert torch.autograd.gradcheck(lambda x: pool(tensor(x)), features)


@pytest.mark.parametrize("mode", ["max", "mean", "sum"])
def test_pooling_keeps_bfloat16_and_norms_compute_in_float32(mode: str) -> None:
    features = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled = SparsePool(mode, 2, 2)(tensor(features)).features
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(
        pooled.float(), SparsePool(mode, 2, 2)(tensor(features.float())).features, atol=0.02, rtol=0.01
    )
    instance, batch = SparseInstanceNorm(2), SparseBatchNorm(2)
    assert torch.equal(instance(tensor(features)).features, instance(tensor(features.float())).features)
    torch.testing.assert_close(
        batch(tensor(features)).features.float(), batch(tensor(features.float())).features, atol=0.02, rtol=0.01
    )


def test_a_maximum_of_what_is_not_a_number_is_none() -> None:
    """-inf is a value like others, and not the mark of an empty voxel."""
    features = torch.tensor([[math.nan, -math.inf], [1.0, -math.inf], [2.0, 3.0], [-1.0, -2.0]])
    pooled = SparsePool("max", 2, 2)(tensor(features))
    rows = {tuple(row): value for row, value in zip(pooled.coordinates.tolist(), pooled.features)}
    assert rows[0, -2, 0, 4][0].isnan()
    assert rows[0, -2, 0, 4][1] == -math.inf
    assert rows[2, -6, 2, 0].tolist() == [-1.0, -2.0]


def test_an_item_without_voxels_pools_to_zero() -> None:
    features = torch.tensor([[1.0, -2.0], [3.0, -4.0], [-5.0, 6.0], [7.0, 8.0]])
    pooled = {mode: SparseGlobalPool(mode)(tensor(features)) for mode in ("max", "mean", "sum")}
    assert pooled["max"].tolist() == [[3.0, 6.0], [0.0, 0.0], [7.0, 8.0]]
    assert pooled["sum"].tolist() == [[-1.0, 0.0], [0.0, 0.0], [7.0, 8.0]]
    torch.testing.assert_close(pooled["mean"], pooled["sum"] / torch.tensor([[3.0], [1.0], [1.0]]))


def test_what_does_not_fit_is_refused() -> None:
    conv = SparseConv(2, 3, 3)
    with pytest.raises(AdlbenchError, match="on 5 channels"):
        conv(tensor(torch.ones(4, 5)))
    with pytest.raises(AdlbenchError, match="3 features on 4 voxels of stride 1"):
        conv(tensor(torch.ones(3, 2)))
    for layer in (SparsePool("max", 2, 2), SparsePool("sum", 2, 2), SparseGlobalPool("max")):
        with pytest.raises(AdlbenchError, match="3 features on 4 voxels"):
            layer(tensor(torch.ones(3, 2)))
    for make in (lambda: SparsePool("median", 2, 2), lambda: SparseGlobalPool("median")):
        with pytest.raises(AdlbenchError, match="'median' is not one of"):
            make()


def test_points_in_double_precision_far_from_the_origin() -> None:
    """One centimetre apart, five thousand kilometres away: in float32 half a metre is one number there."""
    points = torch.tensor([[[5e6, 0.0, 0.0], [5e6 + 0.015, 0.0, 0.0], [5e6 + 0.025, 0.0, 0.0]]], dtype=torch.float64)
    assert quantise(points, 0.01).coordinates[:, 1].diff().tolist() == [1, 1]


def test_averages_of_bfloat16_are_summed_in_float32() -> None:
    values = torch.ones(1, 1000, 1).bfloat16()
    values[0, 0] = 256  # 256 + 1 is 256 in bfloat16
    voxels = quantise(torch.zeros(1, 1000, 3), 1.0)
    average = voxels.average(values)
    assert average.dtype == torch.bfloat16
    assert float(average) == pytest.approx((256 + 999) / 1000, rel=2**-8)
