"""Hash grid, dense grid and planes against numpy written out, closed forms and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import feature_grids
from adlbench.methods.nn.feature_grids import PLANES, DenseGrid, HashGrid, TriPlane, read_planes

LEVELS, FEATURES, TABLE, COARSEST, FINEST = 4, 2, 2**9, 4, 40


def hash_grid(dtype: torch.dtype = torch.float64) -> HashGrid:
    torch.manual_seed(0)
    grid = HashGrid(LEVELS, FEATURES, TABLE, COARSEST, FINEST).to(dtype)
    torch.nn.init.normal_(grid.table)
    return grid


def tiny_cuda_nn(
    table: np.ndarray,
    point: np.ndarray,
    levels: int = LEVELS,
    rows: int = TABLE,
    coarsest: int = COARSEST,
    finest: int = FINEST,
) -> np.ndarray:
    """grid.h of tiny-cuda-nn for one point, corner by corner."""
    out, offset = [], 0
    growth = (finest / coarsest) ** (1 / max(1, levels - 1))
    for level in range(levels):
        scale = coarsest * growth**level - 1
        resolution = math.ceil(scale) + 1
        size = min((resolution**3 + 7) // 8 * 8, rows)
        place = scale * point + 0.5
        corner, share = np.floor(place).astype(int), place - np.floor(place)
        value = np.zeros(table.shape[1])
        for bits in range(8):
            moved = [(bits >> axis) & 1 for axis in range(3)]
            weight = np.prod([share[i] if moved[i] else 1 - share[i] for i in range(3)])
            x, y, z = (int(corner[i]) + moved[i] for i in range(3))
            if resolution**3 <= size:
                index = x + y * resolution + z * resolution**2
            else:
                index = (x * 1 ^ (y * 2654435761) % 2**32 ^ (z * 805459861) % 2**32) % 2**32
            value += weight * table[offset + index % size]
        out.append(value)
        offset += size
    return np.concatenate(out)


@pytest.fixture(params=["numba", "torch"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(feature_grids, "compiled", lambda like: False)
    else:
        pytest.importorskip("numba")
    return request.param  # type: ignore[no-any-return]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_hash_grid_equals_tiny_cuda_nn_written_out(dtype: torch.dtype, tolerance: float) -> None:
    grid = hash_grid(dtype)
    assert [size < TABLE for size in grid.sizes] == [True, False, False, False]  # a dense level, and hashed ones
    border = [[0.0, 0, 0], [1, 1, 1], [1, 0, 0.5], [0.5, 0.5, 0.5]]
    points = torch.cat([torch.tensor(border, dtype=dtype), torch.rand(40, 3, dtype=dtype)])
    got = grid(points).detach().numpy()
    table = grid.table.detach().double().numpy()
    wanted = np.stack([tiny_cuda_nn(table, p) for p in points.double().numpy()])
    # Where float32 rounds a point across a cell's border the corners differ, the value does not.
    np.testing.assert_allclose(got, wanted, atol=tolerance)


@pytest.mark.usefixtures("backend")
def test_hashes_far_beyond_2_to_the_31() -> None:
    """Products of corners and primes up to 2^53, against Python's integers; and what cannot be numbered is refused."""
    finest = 2**21 - 1
    grid = HashGrid(1, 1, TABLE, finest, finest).double()
    with torch.no_grad():
        grid.table.copy_(torch.arange(float(TABLE))[:, None])
    corners = torch.tensor([[0, 0, 0], [finest - 2, 3, 5], [7, finest - 2, finest - 3], [finest - 2] * 3])
    read = grid((corners.double() - 0.5).clamp(min=0) / (finest - 1))
    wanted = [(x ^ (y * 2654435761) % 2**32 ^ (z * 805459861) % 2**32) % TABLE for x, y, z in corners.tolist()[1:]]
    np.testing.assert_allclose(read[1:, 0].tolist(), wanted, atol=1e-4)
    with pytest.raises(DataError, match="fewer than 2\\^21"):
        HashGrid(2, 1, TABLE, 16, 2**21)


def reserved(*shape: int) -> np.ndarray:
    """float32 zeros; memory is reserved for them, and used only where it is written or read."""
    try:
        return np.zeros(shape, dtype=np.float32)
    except MemoryError:
        pytest.skip(f"this machine does not reserve {4 * math.prod(shape) / 2**30:.0f} GiB")


@pytest.mark.usefixtures("backend")
def test_rows_beyond_2_to_the_31() -> None:
    """A hashed level of 2^31 rows and a dense one behind it."""
    grid = HashGrid(2, 1, TABLE, 9, 9)
    grid.sizes, grid.scales, grid.resolutions = [2**31, 1000], [4000.0, 8.0], [4001, 9]
    table = reserved(sum(grid.sizes), 1)
    x, y, z = 1234, 3456, 2345
    hashed = (x ^ (y * 2654435761) % 2**32 ^ (z * 805459861) % 2**32) % 2**31
    table[hashed], table[2**31 + 2 + 9 * 3 + 81 * 4] = 3.0, 5.0
    grid.table = torch.nn.Parameter(torch.from_numpy(table), requires_grad=False)
    place = torch.tensor([[x, y, z]], dtype=torch.float64)
    assert grid(((place - 0.5) / 4000).float())[0, 0].item() == pytest.approx(3.0, abs=0.02)  # float32 places to 4e-4
    dense = torch.tensor([[2.0, 3.0, 4.0]])
    assert grid((dense - 0.5) / 8)[0, 1].item() == pytest.approx(5.0, abs=1e-4)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("seed", range(4))
def test_random_hash_grids_equal_tiny_cuda_nn_in_value_and_gradient(seed: int) -> None:
    """Any sizes, points on cells' borders and twice the same; the table's gradient is the sum of the weights."""
    generator = torch.Generator().manual_seed(seed)
    levels, table, coarsest, finest = ((1, 8, 1, 7), (2, 100, 2, 9), (3, 64, 3, 50), (5, 24, 1, 33))[seed]
    grid = HashGrid(levels, 2, table, coarsest, finest).double()
    torch.nn.init.normal_(grid.table, generator=generator)
    lattice = torch.randint(0, 2 * coarsest + 1, (20, 3), generator=generator).double() / (2 * coarsest)
    points = torch.cat([lattice, lattice[:5], torch.rand(20, 3, dtype=torch.float64, generator=generator)])
    rows = grid.table.detach().numpy()
    wanted = np.stack([tiny_cuda_nn(rows, p, levels, table, coarsest, finest) for p in points.numpy()])
    got = grid(points)
    np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-12)
    pull = torch.randn(got.shape, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad(got, grid.table, pull)
    direction = torch.randn(grid.table.shape, dtype=torch.float64, generator=generator)
    moved = np.stack([tiny_cuda_nn(direction.numpy(), p, levels, table, coarsest, finest) for p in points.numpy()])
    assert float((gradient * direction).sum()) == pytest.approx(float((pull.numpy() * moved).sum()))


@pytest.mark.usefixtures("backend")
def test_what_is_not_a_number_stays_so_and_what_is_endless_is_at_the_border() -> None:
    grid = hash_grid(torch.float32)
    points = torch.tensor([[math.nan, 0.5, 0.5], [0.2, 0.3, 0.4], [math.inf, 0.5, -math.inf]])
    read = grid(points)
    assert read[0].isnan().all()
    assert torch.equal(read[1:], grid(torch.tensor([[0.2, 0.3, 0.4], [1.0, 0.5, 0.0]])))


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"coarsest": 0}, {"table_size": 0}, {"coarsest": 16, "finest": 8}])
def test_grids_that_cannot_be_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="wanted: at least one of each"):
        HashGrid(**wrong)
    for grid in (HashGrid(2, 2, 64, 4, 8), DenseGrid(5, 3), TriPlane(5, 3)):
        with pytest.raises(DataError, match=r"\(4, 6\); \[..., 3\] is wanted"):
            grid(torch.rand(4, 6))


def test_hash_grid_sizes_and_start() -> None:
    """The paper's: 16 levels, 2 features, 2^19 rows, 16 to 2048."""
    grid = HashGrid()
    assert grid.out_features == 32
    assert grid.resolutions[0] == 16
    assert grid.resolutions[-1] == 2048
    assert grid.sizes[0] == 4096
    assert grid.sizes[-1] == 2**19
    assert float(grid.table.detach().abs().max()) <= 1e-4


@pytest.mark.usefixtures("backend")
def test_hash_grid_gradients() -> None:
    grid = HashGrid(2, 1, 16, 2, 5).double()
    points = (torch.rand(3, 3, dtype=torch.float64) * 0.9 + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda table, p: torch.func.functional_call(grid, {"table": table}, p), (grid.table, points)
    )


@pytest.mark.usefixtures("backend")
def test_equal_points_add_their_gradients_up() -> None:
    grid = hash_grid()
    point = torch.full((1, 3), 0.3, dtype=torch.float64)
    (once,) = torch.autograd.grad(grid(point).sum(), grid.table)
    (thrice,) = torch.autograd.grad(grid(point.expand(3, 3)).sum(), grid.table)
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("make", [lambda: HashGrid(2, 2, 64, 4, 8), lambda: DenseGrid(5, 3), lambda: TriPlane(5, 3)])
def test_no_point_one_point_beyond_the_border_and_bfloat16(make: object) -> None:
    grid = make()  # type: ignore[operator]
    assert grid(torch.empty(0, 3)).shape[0] == 0
    assert grid(torch.rand(2, 4, 3)).shape[:2] == (2, 4)
    low = 0.0 if isinstance(grid, HashGrid) else -1.0
    assert torch.equal(grid(torch.tensor([[low - 1, 0.5, 2.0]])), grid(torch.tensor([[low, 0.5, 1.0]])))
    points = torch.rand(6, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert grid(points).dtype == torch.float32
        assert torch.equal(grid(points), grid(points.float()))


def test_dense_grid_holds_a_linear_function_with_x_last_and_its_points_on_the_faces() -> None:
    """align_corners: the first and last points are at -1 and 1; index order z, y, x."""
    grid = DenseGrid(4, 1)
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, 4)] * 3, indexing="ij")
    with torch.no_grad():
        grid.values.copy_((1 + 2 * x + 3 * y - z)[None, None])
    points = torch.rand(50, 3) * 2 - 1
    wanted = 1 + 2 * points[:, 0] + 3 * points[:, 1] - points[:, 2]
    torch.testing.assert_close(grid(points)[:, 0], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(grid.refined(9)(points)[:, 0], wanted, atol=1e-5, rtol=0)


def test_dense_grid_and_planes_gradients() -> None:
    points = (torch.rand(4, 3, dtype=torch.float64) * 1.6 - 0.8).requires_grad_()
    for grid in (DenseGrid(3, 2).double(), TriPlane(3, 2).double()):
        ((name, table),) = grid.named_parameters()
        assert torch.autograd.gradcheck(
            lambda t, p, grid=grid, name=name: torch.func.functional_call(grid, {name: t}, p), (table, points)
        )


def test_the_three_planes_are_distinct() -> None:
    """EG3D's released axes project two of the planes on the same coordinates; each of these leaves out another axis."""
    assert {frozenset(axes) for axes in PLANES} == {frozenset(p) for p in ((0, 1), (0, 2), (1, 2))}
    grid = TriPlane(8, 4)
    points = torch.rand(10, 3) * 2 - 1
    for plane, axes in enumerate(PLANES):
        alone = torch.zeros_like(grid.planes)
        alone[plane] = grid.planes[plane].detach()
        read = read_planes(alone[None], points[None])[0]
        for axis in range(3):
            moved = points.clone()
            moved[:, axis] = -moved[:, axis]
            same = torch.allclose(read_planes(alone[None], moved[None])[0], read)
            assert same == (axis not in axes)


def test_dense_grids_and_planes_of_more_than_2_to_the_31_values() -> None:
    side = 1300
    grid, values = DenseGrid(2, 1), reserved(1, 1, side, side, side)
    values[0, 0, side - 1, side - 2, side - 3] = 5.0  # z, y, x
    grid.values = torch.nn.Parameter(torch.from_numpy(values), requires_grad=False)
    place = 2 * torch.tensor([[side - 3, side - 2, side - 1]], dtype=torch.float64) / (side - 1) - 1
    assert grid(place.float()).item() == pytest.approx(5.0, abs=1e-2)
    side = 27_000
    planes, table = TriPlane(2, 1), reserved(3, 1, side, side)
    table[2, 0, side - 2, side - 5] = 5.0  # the plane yz: z, y
    planes.planes = torch.nn.Parameter(torch.from_numpy(table), requires_grad=False)
    place = 2 * torch.tensor([[0, side - 5, side - 2]], dtype=torch.float64) / (side - 1) - 1
    assert planes(place.float()).item() == pytest.approx(5.0, abs=0.1)  # float32 tells places apart to 2e-3 of a cell


def test_planes_that_a_network_made_in_bfloat16_are_read_as_float32() -> None:
    planes, points = torch.randn(2, 3, 4, 6, 6).bfloat16(), torch.rand(2, 7, 3) * 2 - 1
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            read = read_planes(planes, points)
        assert torch.equal(read, read_planes(planes.float(), points))
    assert read_planes(planes, points[:, :0]).shape == (2, 0, 4)
    assert read_planes(planes[:0], points[:0]).shape == (0, 7, 4)


def test_planes_of_a_batch_are_read_each_for_itself() -> None:
    planes, points = torch.randn(2, 3, 4, 6, 6), torch.rand(2, 7, 3) * 2 - 1
    both = read_planes(planes, points)
    for item in range(2):
        torch.testing.assert_close(both[item], read_planes(planes[item : item + 1], points[item : item + 1])[0])
