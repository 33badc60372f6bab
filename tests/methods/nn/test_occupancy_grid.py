"""The occupancy grid, and packed samples against the same samples in a dense array."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adlbench.methods.nn import occupancy_grid, volume_rendering
from adlbench.methods.nn.occupancy_grid import OccupancyGrid
from adlbench.methods.nn.rays import Rays
from adlbench.methods.nn.volume_rendering import accumulate, accumulate_packed, composite, composite_packed


def grid(resolution: int = 4) -> OccupancyGrid:
    return OccupancyGrid(torch.full((3,), -1.0), torch.tensor([1.0, 1.0, 3.0]), resolution)


def test_a_point_belongs_to_the_cell_above_it_and_nothing_is_outside() -> None:
    made = grid()
    made.occupied.zero_()
    made.occupied[(1 * 4 + 2) * 4 + 3] = True  # x in [-0.5, 0), y in [0, 0.5), z in [2, 3)
    points = torch.tensor([[-0.5, 0, 2], [-0.01, 0.49, 2.99], [0, 0, 2], [-0.5, 0, 1.99], [-0.5, 0, 3]])
    assert made.contains(points).tolist() == [True, True, False, False, False]
    made.occupied.fill_(True)
    outside = torch.tensor([[-1.01, 0, 0], [1, 0, 0], [0, 0, 5], [float("nan"), 0, 0]])
    assert not made.contains(outside).any()
    assert made.contains(torch.full((1, 3), -1.0)).all()


def test_update_finds_a_ball_and_forgets_it_when_it_has_moved() -> None:
    made, generator = grid(16), torch.Generator().manual_seed(0)

    def ball(points: Tensor) -> Tensor:
        return 50.0 * (points.norm(dim=1) < 0.5)

    for _ in range(3):
        made.update(ball, 0.1, generator)
    axis = (torch.arange(16) + 0.5) / 16
    x, y, z = torch.meshgrid(2 * axis - 1, 2 * axis - 1, 4 * axis - 1, indexing="ij")
    radius = torch.stack([x, y, z], -1).norm(dim=-1).flatten()
    assert made.occupied[radius < 0.35].all()
    assert not made.occupied[radius > 0.75].any()
    for _ in range(200):
        made.update(lambda points: ball(points - torch.tensor([0.0, 0, 1.5])), 0.1, generator, share=0.25)
    assert not made.occupied[radius < 0.7].any()
    assert made.occupied.any()


def test_a_field_that_is_faint_everywhere_does_not_vanish() -> None:
    made, generator = grid(), torch.Generator().manual_seed(0)
    made.update(lambda points: torch.rand(len(points), generator=generator) * 1e-3, 0.1, generator)
    assert made.occupied.any()


@pytest.fixture(params=["numba", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        for module in (occupancy_grid, volume_rendering):
            monkeypatch.setattr(module, "compiled", lambda like: False)
    else:
        pytest.importorskip("numba")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("random", [False, True])
def test_march_visits_occupied_cells_at_even_steps(random: bool) -> None:
    made = grid(8)
    made.occupied.copy_(torch.rand(512, generator=torch.Generator().manual_seed(1)) > 0.6)
    rays = Rays(
        torch.tensor([[0.1, 0.2, -2], [0.3, 0, -2], [9, 9, 9.0]]), torch.tensor([[0.1, 0, 1], [0, 0.2, 1], [0, 0, 1]])
    )
    near, far = torch.tensor([0.5, 1.0, 1.0]), torch.tensor([4.9, 4.33, 1.0])  # the last ray is empty
    step = torch.tensor([0.1, 0.13, 0.1])
    generator = torch.Generator().manual_seed(2) if random else None
    ray, depths, lengths = made.march(rays, near, far, step, generator)
    assert (ray.diff() >= 0).all()
    assert set(ray.tolist()) == {0, 1}
    for index in (0, 1):
        own = depths[ray == index]
        assert (own.diff() > 0.999 * step[index]).all()
        shift = torch.remainder((own - near[index]) / step[index], 1)
        torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-3, rtol=0)
        if not random:
            assert float(shift[0]) == pytest.approx(0.5, abs=1e-3)
        every = near[index] + (torch.arange(100) + shift[0]) * step[index]
        every = every[every < far[index]]
        there = made.contains(rays.origins[index] + every[:, None] * rays.directions[index])
        torch.testing.assert_close(own, every[there])
    full = grid(8)
    _, _, lengths = full.march(Rays(rays.origins[:1] * 0, rays.directions[:1]), near[:1], far[:1] * 0 + 0.97, step[:1])
    assert float(lengths.sum()) == pytest.approx(0.47, abs=1e-5)  # the last interval is cut off


def test_more_than_2_to_the_31_cells() -> None:
    made = grid(2)
    made.resolution = 1400
    inside, cell = made.cells(torch.tensor([[0.9999, 0.9999, 2.9999], [-1, -1, -1], [0, 0, 1]]))
    assert inside.all()
    assert cell.tolist() == [1400**3 - 1, 0, (700 * 1400 + 700) * 1400 + 700]


def test_both_backends_march_to_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: through corners and faces of cells, outside of the box, with and without chance; and no ray at all."""
    pytest.importorskip("numba")
    made, generator = grid(16), torch.Generator().manual_seed(0)
    made.occupied.copy_(torch.rand(16**3, generator=generator) > 0.5)
    directions = torch.randn(300, 3, generator=generator)
    directions[:50] = torch.eye(3)[torch.randint(3, (50,), generator=generator)]  # along the cells' faces
    rays = Rays(0.25 * torch.randint(-8, 9, (300, 3), generator=generator), directions)
    near = torch.rand(300, generator=generator)
    far, step = near + 3 * torch.rand(300, generator=generator) - 0.2, 0.01 + 0.1 * torch.rand(300, generator=generator)
    for count, random in ((300, False), (300, True), (0, False)):
        some = (Rays(rays.origins[:count], rays.directions[:count]), near[:count], far[:count], step[:count])
        results = []
        for backend in (True, False):
            monkeypatch.setattr(occupancy_grid, "compiled", lambda like, chosen=backend: chosen)
            results.append(made.march(*some, torch.Generator().manual_seed(1) if random else None))
        for mine, theirs in zip(*results, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
    assert len(results[0].ray) == 0


# -------------------------------------------------------------------------------------------------------- packed samples
COUNTS = (3, 0, 5, 1, 0)


def packed() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rays of unequal numbers of samples: ray, density, length, and the places in a dense [5, 5] array."""
    ray = torch.repeat_interleave(torch.arange(5), torch.tensor(COUNTS))
    place = torch.cat([torch.arange(n) for n in COUNTS])
    generator = torch.Generator().manual_seed(0)
    density, length = torch.rand(2, len(ray), dtype=torch.float64, generator=generator).mul(3)
    return ray, place, density, length


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("stop_below", [0.0, 0.2])
def test_packed_equals_dense(stop_below: float) -> None:
    ray, place, density, length = packed()
    dense_density, dense_length = torch.zeros(2, 5, 5, dtype=torch.float64)
    dense_density[ray, place], dense_length[ray, place] = density, length
    wanted = composite(dense_density, dense_length, stop_below)
    got = composite_packed(density, length, ray, 5, stop_below)
    torch.testing.assert_close(got.weights, wanted.weights[ray, place])
    torch.testing.assert_close(got.transmittance, wanted.transmittance[ray, place])
    torch.testing.assert_close(got.opacity, wanted.opacity)
    values = torch.rand(len(ray), 3, dtype=torch.float64)
    dense_values = torch.zeros(5, 5, 3, dtype=torch.float64)
    dense_values[ray, place] = values
    summed = torch.stack([accumulate(w[None], v[None])[0] for w, v in zip(wanted.weights.float(), dense_values)])
    torch.testing.assert_close(accumulate_packed(got.weights, values, ray, 5).float(), summed)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("stop_below", [0.0, 0.2])
def test_packed_gradients(stop_below: float) -> None:
    ray, _, density, length = packed()
    free = (density.requires_grad_(), length.requires_grad_())
    assert torch.autograd.gradcheck(lambda d, n: composite_packed(d, n, ray, 5, stop_below)[:], free)
    values = torch.rand(len(ray), 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, v: accumulate_packed(w, v, ray, 5), (density, values))


@pytest.mark.usefixtures("backend")
def test_packed_nothing_and_opaque() -> None:
    """No sample at all; and a wall on the first of 2,000 rays, behind which sums in float32 would have no digits left."""
    none = torch.empty(0)
    assert composite_packed(none, none, none.long(), 4).opacity.tolist() == [0.0] * 4
    ray = torch.arange(2000).repeat_interleave(2)
    density = torch.full((4000,), 0.5)
    density[:2] = 1e12
    got = composite_packed(density, torch.ones(4000), ray, 2000)
    assert float(got.opacity[0]) == 1.0
    torch.testing.assert_close(got.opacity[1:], torch.full((1999,), 1 - 2.718281828**-1))
