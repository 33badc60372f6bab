"""Hash grid, sequence scan and Chamfer distance beside their peers."""

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

from adlbench.methods.nn.chamfer import chamfer
from adlbench.methods.nn.feature_grids import PRIMES, HashGrid

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


# -------------------------------------------------------------------------------------------------------------- Chamfer
def chamfer_distance(points: int) -> Mapping[str, Run]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, points, 3, generator=generator, dtype=torch.float64)
    one, other = nn.functional.normalize(directions, dim=-1) + 0.005 * torch.randn(2, points, 3, generator=generator)
    runs: dict[str, Run] = {"own": lambda: chamfer(one, other, squared=False)}
    if installed("point_cloud_utils"):
        utils = importlib.import_module("point_cloud_utils")
        first, second = one.numpy(), other.numpy()
        runs["point-cloud-utils"] = lambda: utils.chamfer_distance(first, second)
    return runs


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
        "Chamfer distance, forward", (3_000, 10_000, 30_000), "points", chamfer_distance, {"point-cloud-utils": 1.0}
    ),
]
