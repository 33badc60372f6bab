"""Hash grid, NeRF's network, volume rendering and sequence scan beside their peers."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from measure import Kernel, Run, installed
from torch import Tensor, nn

from adlbench.methods.nn import fused_mlp, occupancy_grid
from adlbench.methods.nn.feature_grids import PRIMES, HashGrid
from adlbench.methods.nn.occupancy_grid import OccupancyGrid
from adlbench.methods.nn.positional_encoding import PositionalEncoding
from adlbench.methods.nn.rays import Rays, sphere_bounds
from adlbench.methods.nn.volume_rendering import accumulate, accumulate_packed, composite, composite_packed
from adlbench.methods.novel_view_synthesis.nerf import NeRFNetwork, encode_position

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmark"))


# ------------------------------------------------------------------------------------------------------------ hash grid
class TextbookHash(nn.Module):
    """As nerfstudio's ``HashEncoding`` in torch: all levels and all corners at once, every level hashed, no 0.5."""

    def __init__(self, levels: int = 16, features: int = 2, rows: int = 2**19, coarsest: int = 16, finest: int = 2048):
        super().__init__()
        growth = math.exp(math.log(finest / coarsest) / (levels - 1))
        self.scales = torch.floor(coarsest * growth ** torch.arange(levels))
        self.rows, self.offsets = rows, torch.arange(levels) * rows
        self.table = nn.Parameter(1e-3 * torch.rand(levels * rows, features))

    def forward(self, points: Tensor) -> Tensor:
        scaled = points[:, None] * self.scales[:, None]  # [M, L, 3]
        low, high = scaled.floor().long(), scaled.ceil().long()
        share = scaled - low
        total: Tensor | float = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            x, y, z = (
                torch.where(torch.tensor(bit == 1), high[..., i], low[..., i]) * PRIMES[i]
                for i, bit in enumerate(corner)
            )
            weight = math.prod(share[..., i] if bit else 1 - share[..., i] for i, bit in enumerate(corner))
            total = total + self.table[(x ^ y ^ z) % self.rows + self.offsets] * weight[..., None]
        return total.flatten(1)


def hash_grid(points: int) -> Mapping[str, Run]:
    places = torch.rand(points, 3, generator=torch.Generator().manual_seed(0))

    def both(encoding: nn.Module) -> Run:
        parameters = list(encoding.parameters())
        return lambda: torch.autograd.grad(encoding(places).square().sum(), parameters)

    runs = {"own": both(HashGrid()), "textbook torch": both(TextbookHash())}
    if installed("nerfstudio"):
        encodings = importlib.import_module("nerfstudio.field_components.encodings")
        runs["nerfstudio"] = both(encodings.HashEncoding(max_res=2048, log2_hashmap_size=19, implementation="torch"))
    return runs


# ----------------------------------------------------------------------------------------------------------------- scan
def scan(tokens: int) -> Mapping[str, Run]:
    if not installed("transformers"):
        raise SystemExit("this kernel is measured inside transformers' Mamba2Mixer; pip install transformers")
    from mamba2_mixer import mixer_with_own_scan, small_mixer

    mixer = small_mixer(hidden=64, state=64, head=32)
    x = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(0))
    parameters = list(mixer.parameters())

    def own() -> None:
        torch.autograd.grad(mixer_with_own_scan(mixer, x).square().sum(), parameters)

    def theirs() -> None:
        torch.autograd.grad(mixer(x).square().sum(), parameters)

    return {"own": own, "transformers": theirs}


# -------------------------------------------------------------------------------------------------------------- network
def network(samples: int) -> Mapping[str, Run]:
    torch.manual_seed(0)
    octaves = PositionalEncoding(3, 8)
    field = NeRFNetwork(4, 128, 4, octaves.out_features, 27)
    rays, parameters = samples // 64, list(field.parameters())
    points, directions = torch.rand(rays, 64, 3) * 2 - 1, torch.randn(rays, 27)

    def run(fused: bool) -> None:
        usual = fused_mlp._has_tiles
        fused_mlp._has_tiles = lambda: fused and usual()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            density, rgb = field(encode_position(octaves, points), directions)
        torch.autograd.grad(density.sum() + rgb.sum(), parameters)
        fused_mlp._has_tiles = usual

    return {"own": lambda: run(True), "plain torch": lambda: run(False)}


# ----------------------------------------------------------------------------------------------------- volume rendering
SAMPLES, SPARSE = 64, 8  # samples on a ray, and how many of them are in occupied cells


def rays_through_fog(rays: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges [R, S + 1], density [R, S] and rgb [R, S, 3], both with gradients."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.linspace(2, 6, SAMPLES + 1).expand(rays, -1).contiguous()
    density = torch.rand(rays, SAMPLES, generator=generator).mul(2).requires_grad_()
    return edges, density, torch.rand(rays, SAMPLES, 3, generator=generator).requires_grad_()


def compositing(rays: int) -> Mapping[str, Run]:
    edges, density, rgb = rays_through_fog(rays)

    def own() -> object:
        weights, _, opacity = composite(density, edges.diff(dim=-1))
        return torch.autograd.grad((accumulate(weights, rgb).sum() + opacity.sum()), (density, rgb))

    def plain() -> object:  # raw2outputs of nerf-pytorch
        alpha = 1 - torch.exp(-density * edges.diff(dim=-1))
        passed = torch.cumprod(torch.cat([torch.ones(rays, 1), 1 - alpha + 1e-10], -1), -1)[:, :-1]
        weights = alpha * passed
        return torch.autograd.grad((weights[..., None] * rgb).sum() + weights.sum(), (density, rgb))

    return {"own": own, "plain torch": plain} | ({"nerfacc": with_nerfacc(edges, density, rgb)} if NERFACC else {})


def with_nerfacc(edges: Tensor, density: Tensor, rgb: Tensor) -> Run:
    volrend = importlib.import_module("nerfacc.volrend")

    def run() -> object:
        weights, _, _ = volrend.render_weight_from_density(edges[:, :-1], edges[:, 1:], density)
        colour, opacity = volrend.accumulate_along_rays(weights, rgb), volrend.accumulate_along_rays(weights, None)
        return torch.autograd.grad(colour.sum() + opacity.sum(), (density, rgb))

    return run


def packed_compositing(rays: int) -> Mapping[str, Run]:
    """nerfacc's functions for packed samples want a GPU: without them a ray keeps all its samples, most of them empty."""
    edges, density, rgb = rays_through_fog(rays)
    first = torch.randint(SAMPLES - SPARSE, (rays,), generator=torch.Generator().manual_seed(1))
    place = (first[:, None] + torch.arange(SPARSE)).flatten()
    ray = torch.arange(rays).repeat_interleave(SPARSE)
    lengths = edges.diff(dim=-1)[ray, place]
    own_density, own_rgb = (x.detach()[ray, place].requires_grad_() for x in (density, rgb))

    def own() -> object:
        weights, _, opacity = composite_packed(own_density, lengths, ray, rays)
        colour = accumulate_packed(weights, own_rgb, ray, rays)
        return torch.autograd.grad(colour.sum() + opacity.sum(), (own_density, own_rgb))

    empty = torch.zeros(rays, SAMPLES).index_put((ray, place), own_density.detach()).requires_grad_()
    return {"own": own} | ({"nerfacc": with_nerfacc(edges, empty, rgb)} if NERFACC else {})


def marching(rays: int) -> Mapping[str, Run]:
    """96 steps through a ball of which one cell in ten is occupied."""
    generator = torch.Generator().manual_seed(0)
    grid = OccupancyGrid(torch.full((3,), -1.0), torch.full((3,), 1.0), 32)
    grid.occupied.copy_(torch.rand(len(grid.occupied), generator=generator) < 0.1)
    aims = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1) * 0.5
    some = Rays(torch.tensor([0.0, 0.0, -3.0]).expand(rays, -1), aims + torch.tensor([0.0, 0.0, 3.0]))
    bounds = sphere_bounds(some, torch.zeros(3), 1.0, 0.1, 5.0)
    step = 2 / 96 / some.directions.norm(dim=-1)

    def run(backend: bool) -> None:
        usual = occupancy_grid.compiled
        occupancy_grid.compiled = lambda like: backend
        grid.march(some, *bounds, step)
        occupancy_grid.compiled = usual

    return {"own": lambda: run(occupancy_grid.compiled(step)), "plain torch": lambda: run(False)}


NERFACC = installed("nerfacc")
KERNELS = [
    Kernel(
        "hash grid, 16 levels of 2 features, 2^19 rows, forward + backward",
        (4_096, 16_384, 65_536),
        "points",
        hash_grid,
        {"nerfstudio": 1.5, "textbook torch": 1.5},
    ),
    Kernel(
        "Mamba-2 mixer of width 64, forward + backward", (1_024, 4_096, 16_384), "tokens", scan, {"transformers": 1.0}
    ),
    Kernel(
        f"volume rendering, {SAMPLES} samples a ray, forward + backward",
        (1_024, 4_096, 16_384),
        "rays",
        compositing,
        {"nerfacc": 1.0, "plain torch": 1.0},
    ),
    Kernel(
        f"volume rendering, packed, {SPARSE} of {SAMPLES} samples a ray, forward + backward",
        (1_024, 4_096, 16_384),
        "rays",
        packed_compositing,
        {"nerfacc": 1.0},
    ),
    Kernel(
        "NeRF's network with its encoding, 4 layers of 128, bfloat16, forward + backward",
        (2_048, 16_384, 65_536),
        "samples",
        network,
        {"plain torch": 1.0},
    ),
    Kernel("marching, 96 steps, 32^3 cells", (1_024, 4_096, 16_384), "rays", marching, {"plain torch": 1.0}),
]
