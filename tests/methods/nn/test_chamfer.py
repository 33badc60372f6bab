"""The Chamfer loss against all pairs, and its gradient."""

from __future__ import annotations

import pytest
import torch

from adlbench.benchmark.api import DataError
from adlbench.benchmark.metrics.geometry import compare_surfaces
from adlbench.methods.nn import chamfer as module
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


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_float32_points_on_a_lattice_negative_repeated_and_of_unequal_numbers(seed: int, squared: bool) -> None:
    """Distances of points that coincide, or lie equally far, against all pairs in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 60, (2,), generator=generator).tolist()
    points, truth = (torch.randint(-3, 4, (n, 3), generator=generator).float() / 3 for n in sizes)
    distances = torch.cdist(points.double(), truth.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances.square() if squared else distances
    wanted = distances.amin(1).mean() + distances.amin(0).mean()
    torch.testing.assert_close(chamfer(points, truth, squared).double(), wanted, rtol=1e-6, atol=1e-7)


def test_by_pairs_as_on_a_gpu_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", 100)  # several parts
    generator = torch.Generator().manual_seed(0)
    points, truth = torch.randn(70, 3, generator=generator), torch.randn(40, 3, generator=generator)
    by_trees = module.nearest(points, truth)
    by_pairs = module._nearest_by_pairs(points, truth), module._nearest_by_pairs(truth, points)
    assert all(map(torch.equal, by_trees, by_pairs))


def test_more_than_2_to_the_31_points() -> None:
    """Points without memory, in parts as on a GPU: sizes, and the type of the indices."""
    many, one = torch.empty(2**31 + 5, 3, device="meta"), torch.empty(1, 3, device="meta")
    forth, back = module.nearest(many, one)
    assert (forth.shape, back.shape) == ((2**31 + 5,), (1,))
    assert forth.dtype == back.dtype == torch.int64
    assert chamfer(many, one).shape == ()


def test_one_point_and_bfloat16() -> None:
    assert float(chamfer(torch.zeros(1, 3), torch.tensor([[3.0, 4, 0]]), squared=False)) == 10
    points, truth = torch.randn(9, 3).bfloat16(), torch.randn(7, 3).bfloat16()
    assert torch.equal(chamfer(points, truth), chamfer(points.float(), truth.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(chamfer(points, truth), chamfer(points.float(), truth.float()))


@pytest.mark.parametrize(
    ("points", "truth", "message"),
    [
        (torch.empty(0, 3), torch.zeros(1, 3), "0 and 1 points"),
        (torch.zeros(2, 2), torch.zeros(1, 3), r"\[2, 2\] and \[1, 3\]"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), "wanted"),
        (torch.zeros(2, 3) * torch.nan, torch.zeros(1, 3), "not finite"),
        (torch.zeros(2, 3), torch.full((1, 3), torch.inf), "not finite"),
    ],
)
def test_wrong_use_is_named(points: torch.Tensor, truth: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        chamfer(points, truth)
