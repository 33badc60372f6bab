"""The occupancy grid, and packed samples against the same samples in a dense array."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
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


@pytest.mark.usefixtures("backend")
def test_rays_without_length_bfloat16_and_rays_that_have_no_end() -> None:
    """A ray that misses the scene has near = far, and no length to divide into steps."""
    made, one = grid(8), torch.ones(2)
    rays = Rays(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1]]).repeat(2, 1))
    assert len(made.march(rays, 0.5 * one, torch.tensor([0.5, 0.2]), 0 * one).ray) == 0
    half = [x.bfloat16() for x in (*rays, 0.25 * one, 0.75 * one, 0.125 * one)]
    found = made.march(Rays(*half[:2]), *half[2:])
    wanted = made.march(Rays(*(x.float() for x in half[:2])), *(x.float() for x in half[2:]))
    assert all(map(torch.equal, found, wanted))
    assert len(found.ray) == 8
    for bad in (
        (0.1, 0.5, 0.0),
        (0.1, 0.5, -0.1),
        (0.1, float("inf"), 0.1),
        (float("nan"), 0.5, 0.1),
        (0.1, 0.5, float("inf")),
    ):
        with pytest.raises(DataError, match="near and far must be finite, step positive"):
            made.march(rays, *(value * one for value in bad))


def test_one_point_that_is_not_a_number_does_not_empty_the_grid() -> None:
    made, generator = grid(8), torch.Generator().manual_seed(0)
    made.update(lambda points: torch.where(points[:, 0] > 0.9, torch.nan, 50.0 * (points[:, 2] > 1)), 0.1, generator)
    cells = made.occupied.view(8, 8, 8)
    assert cells[:7, :, 4:].all()
    assert not cells[:, :, :4].any()
    for low, high, resolution in ((0.0, 1.0, 0), (1.0, 1.0, 4)):
        with pytest.raises(DataError, match="it has no volume"):
            OccupancyGrid(torch.full((3,), low), torch.full((3,), high), resolution)
    assert OccupancyGrid(torch.zeros(3), torch.ones(3), 1).contains(torch.rand(4, 3)).all()
    assert made.contains(torch.empty(0, 3)).shape == (0,)


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
@pytest.mark.parametrize("seed", range(6))
def test_random_packed_rays_equal_dense_ones_in_float32(seed: int) -> None:
    """Rays of many, of one and of no sample, some opaque, samples of no length; to 1e-6 of a weight, against float64."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 9, (40,), generator=generator) * torch.randint(0, 2, (40,), generator=generator)
    ray = torch.repeat_interleave(torch.arange(40), counts)
    place = torch.cat([torch.arange(n) for n in counts.tolist()])
    density = torch.rand(len(ray), generator=generator) * 10.0 ** torch.randint(-4, 5, (len(ray),), generator=generator)
    length = torch.rand(len(ray), generator=generator) * (torch.rand(len(ray), generator=generator) > 0.2)
    dense = torch.zeros(2, 40, 9, dtype=torch.float64)
    dense[:, ray, place] = torch.stack([density, length]).double()
    wanted = composite(*dense)
    got = composite_packed(density, length, ray, 40)
    assert got.weights.dtype == torch.float32
    torch.testing.assert_close(got.weights.double(), wanted.weights[ray, place], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.opacity.double(), wanted.opacity, atol=1e-6, rtol=0)
    half = composite_packed(density.bfloat16(), length.bfloat16(), ray, 40)
    exact = composite_packed(density.bfloat16().float(), length.bfloat16().float(), ray, 40)
    assert all(map(torch.equal, half, exact))
    assert half.weights.dtype == torch.float32
    values = torch.randn(len(ray), 3, generator=generator).bfloat16()
    assert accumulate_packed(got.weights, values, ray, 40).dtype == torch.float32


def test_packed_rays_and_samples_beyond_2_to_the_31() -> None:
    """The numbers of rays do not fit into 32 bits. Memory is reserved for all of them, and used for two pages only."""
    numba = pytest.importorskip("adlbench.methods.nn.volume_rendering_numba")
    rays = np.array([3, 2**31 + 5, 2**31 + 5])
    try:
        total = np.zeros((2**31 + 8, 1), dtype=np.float32)
    except MemoryError:
        pytest.skip("this machine does not reserve 8 GiB")
    numba._accumulate(np.ones(3, np.float32), np.array([[1.0], [2], [4]], np.float32), rays, total)
    assert (total[3, 0], total[2**31 + 5, 0]) == (1.0, 6.0)
    opacity = total[:, 0]
    weights, transmittance = np.empty(3, np.float32), np.empty(3, np.float32)
    numba._composite(np.full(3, 0.5, np.float32), rays, 0.0, weights, transmittance, opacity)
    assert opacity[2**31 + 5] == pytest.approx(6 + 1 - np.exp(-1.0), abs=1e-6)


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
