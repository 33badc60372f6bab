"""Sparse voxels with spherical harmonics: interpolation, the order of operations, pruning and refinement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import spherical_harmonics
from adlbench.methods.nn.voxel_radiance import SparseVoxels

LOW, HIGH, RESOLUTION = torch.full((3,), -1.0), torch.ones(3), 5


def voxels(dtype: torch.dtype = torch.float64, degree: int = 2) -> SparseVoxels:
    torch.manual_seed(0)
    made = SparseVoxels(LOW, HIGH, RESOLUTION, degree).to(dtype)
    torch.nn.init.normal_(made.density)
    torch.nn.init.normal_(made.harmonics)
    return made


def some(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(count, 3, dtype=torch.float64, generator=generator) * 2 - 1
    directions = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return points.to(dtype), torch.nn.functional.normalize(directions, dim=1).to(dtype)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_equals_grid_sample_then_relu_and_clamp(degree: int) -> None:
    """Values at voxel centres (align_corners=False), the border repeated; interpolate first, then cut off at 0."""
    made = voxels(degree=degree)
    points, directions = some(60)
    table = torch.cat([made.density[:, None], made.harmonics], 1).detach()
    dense = table.view(RESOLUTION, RESOLUTION, RESOLUTION, -1).permute(3, 2, 1, 0)[None]  # z, y, x
    read = torch.nn.functional.grid_sample(
        dense, points.view(1, -1, 1, 1, 3), mode="bilinear", padding_mode="border", align_corners=False
    ).flatten(2)[0]
    coefficients = read[1:].view(3, -1, len(points)).permute(1, 0, 2)
    colour = spherical_harmonics.evaluate(coefficients[0], coefficients[1:], directions.t(), degree).t() + 0.5
    density, rgb = made(points, directions)
    torch.testing.assert_close(density, read[0].clamp(min=0))
    torch.testing.assert_close(rgb, colour.clamp(min=0))
    assert float(rgb.detach().max()) > 1  # no upper bound
    assert (density == 0).any()


def test_gradients() -> None:
    made = SparseVoxels(LOW, HIGH, 2, 1).double()
    torch.nn.init.normal_(made.harmonics)
    points, directions = some(4)
    tables = (made.density, made.harmonics)

    def read(density: Tensor, harmonics: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        values = {"density": density + 3, "harmonics": 0.1 * harmonics}  # away from where both are cut off
        return torch.func.functional_call(made, values, (p, directions))

    assert torch.autograd.gradcheck(read, (*tables, (0.8 * points).requires_grad_()))


def test_pruned_keeps_the_neighbours_and_what_is_gone_counts_as_nothing() -> None:
    made = voxels()
    keep = torch.zeros(len(made), dtype=torch.bool)
    keep[made.links[2, 2, 2]] = True
    small = made.pruned(keep)
    assert len(small) == 27
    points, directions = some(200)
    inner = 0.19 * points  # all eight voxels around are still there
    for got, wanted in zip(small(inner, directions), made(inner, directions)):
        torch.testing.assert_close(got, wanted)
    corner = torch.full((1, 3), 0.99, dtype=torch.float64)
    density, rgb = small(corner, directions[:1])
    assert density.item() == 0
    assert rgb.tolist() == [[0.5, 0.5, 0.5]]
    assert len(made.pruned(keep, dilation=0)) == 1
    nothing = made.pruned(torch.zeros_like(keep))
    assert len(nothing) == 0
    assert float(nothing(corner, directions[:1])[0].detach()) == 0


def test_largest_weights_are_those_of_the_samples_around() -> None:
    made = voxels()
    centre = torch.tensor([[0.0, 0, 0], [0.0, 0, 0], [0.8, 0.8, 0.8]], dtype=torch.float64)
    found = made.largest_weights(centre, torch.tensor([0.2, 0.7, 0.4]))
    assert float(found[made.links[2, 2, 2]]) == pytest.approx(0.7)
    assert float(found[made.links[4, 4, 4]]) == pytest.approx(0.4)
    assert int((found > 1e-6).sum()) == 2
    assert torch.equal(made.largest_weights(centre[:0], torch.empty(0), out=found), found)


def test_refined_is_the_same_field_inside() -> None:
    """Linear fields are met exactly; the new voxels lie a quarter of a voxel around the old ones."""
    made = voxels()
    x = (torch.arange(RESOLUTION, dtype=torch.float64) + 0.5) / RESOLUTION * 2 - 1
    with torch.no_grad():
        made.density.copy_((3 + x[:, None, None] + 0.5 * x[None, :, None]).expand(-1, -1, RESOLUTION).flatten())
    finer = made.refined()
    assert finer.resolution == 2 * RESOLUTION
    assert len(finer) == 8 * len(made)
    points, directions = some(50)
    inner = 0.7 * points
    torch.testing.assert_close(finer(inner, directions)[0], made(inner, directions)[0])
    keep = torch.zeros(len(made), dtype=torch.bool)
    keep[0] = True
    assert len(made.pruned(keep, dilation=0).refined()) == 8


def test_total_variation_of_a_slope() -> None:
    made = voxels()
    with torch.no_grad():
        x = torch.arange(RESOLUTION, dtype=torch.float64)
        made.density.copy_((2 * x).repeat_interleave(RESOLUTION**2))
        made.harmonics.zero_()
    inside = made.links[:-1, :-1, :-1].flatten()
    density, harmonics = made.total_variation(inside)
    assert density.item() == pytest.approx(2, abs=1e-6)
    assert harmonics.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("resolution", [1, 2])
def test_no_point_few_voxels_and_bfloat16(resolution: int) -> None:
    made = SparseVoxels(LOW, HIGH, resolution)
    torch.nn.init.normal_(made.harmonics)
    points, directions = some(6, torch.float32)
    density, rgb = made(points[:0], directions[:0])
    assert (density.shape, rgb.shape) == ((0,), (0, 3))
    torch.testing.assert_close(made(points, directions)[0], torch.full((6,), 0.1))
    half = points.bfloat16(), directions.bfloat16()
    for got, wanted in zip(made(*half), made(*(x.float() for x in half))):
        assert torch.equal(got, wanted)
    assert [x.item() for x in made.total_variation(torch.empty(0, dtype=torch.int64))] == [0.0, 0.0]
    assert len(made.refined()) == 8 * resolution**3


def test_beyond_the_box_is_the_border_and_what_is_not_finite_is_refused() -> None:
    made = voxels()
    points, directions = some(30)
    far = made(3 * points, directions)
    for got, wanted in zip(far, made((3 * points).clamp(-1, 1), directions)):
        torch.testing.assert_close(got, wanted)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="check the camera"):
            made(points * bad, directions)


def test_a_grid_from_which_all_was_pruned_can_be_trained_further() -> None:
    """Its loss has gradients, of no entry; it does not stop the optimiser."""
    nothing = voxels().pruned(torch.zeros(RESOLUTION**3, dtype=torch.bool))
    density, rgb = nothing(*some(4))
    assert (density == 0).all()
    assert (rgb == 0.5).all()
    variation = nothing.total_variation(torch.empty(0, dtype=torch.int64))
    (density.sum() + rgb.sum() + sum(variation)).backward()
    assert nothing.density.grad is not None
    assert nothing.density.grad.shape == (0,)
    assert len(nothing.refined()) == 0


def test_more_than_2_to_the_31_voxels() -> None:
    """1,400^3 voxels, all of them one row whose number does not fit into 32 bits."""
    made = SparseVoxels(LOW, HIGH, 1)
    made.resolution, row = 1400, 2**31 + 5
    made.links = torch.full((1, 1, 1), row).expand(1400, 1400, 1400)
    rows, weights = made.neighbours(torch.tensor([[1.0, 1, 1], [-1, -1, -1], [0.3, 0.9, 0.99]]))
    assert (rows == row).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
