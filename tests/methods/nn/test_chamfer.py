"""The Chamfer loss against all pairs, and its gradient."""

from __future__ import annotations

import pytest
import torch

from adlbench.benchmark.metrics.geometry import compare_surfaces
from adlbench.methods.nn.chamfer import chamfer


@pytest.mark.parametrize("squared", [True, False])
def test_equals_all_pairs_and_the_metric(squared: bool) -> None:
    points, truth = torch.randn(40, 3, dtype=torch.float64), torch.randn(25, 3, dtype=torch.float64)
    distances = torch.cdist(points, truth)
    distances = distances.square() if squared else distances
    wanted = distances.amin(1).mean() + distances.amin(0).mean()
    torch.testing.assert_close(chamfer(points, truth, squared), wanted)
    metric = compare_surfaces(points.numpy(), truth.numpy())
    assert float(wanted) == pytest.approx(metric.chamfer_l2 if squared else 2 * metric.chamfer_l1)


@pytest.mark.parametrize("squared", [True, False])
def test_gradients_and_points_that_coincide(squared: bool) -> None:
    points, truth = (torch.randn(6, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda p, t: chamfer(p, t, squared), (points, truth))
    same = torch.ones(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(chamfer(same, torch.ones(1, 3), squared), same)
    assert torch.equal(grad, torch.zeros(2, 3))


def test_one_point_no_point_and_bfloat16() -> None:
    assert float(chamfer(torch.zeros(1, 3), torch.tensor([[3.0, 4, 0]]), squared=False)) == 10
    with pytest.raises(ValueError, match="0 and 1 points"):
        chamfer(torch.empty(0, 3), torch.zeros(1, 3))
    assert chamfer(torch.zeros(2, 3).bfloat16(), torch.ones(2, 3).bfloat16()).dtype == torch.float32
