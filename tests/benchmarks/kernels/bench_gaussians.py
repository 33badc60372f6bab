"""The Gaussian rasteriser from parameters to gradients: beside gsplat's rasterisation in torch, and beside itself without numba.

gsplat's takes lists from its CUDA library; ``tests/benchmark/gsplat_on_cpu.py`` writes those out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from measure import Kernel, Run, installed
from torch import Tensor

from adlbench.methods.nn import gaussian_rasterizer
from adlbench.methods.nn.gaussian_cloud import GaussianCloud

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmark"))

DEGREE, BACKGROUND = 3, torch.ones(3)


def cloud(count: int, pixels: float, side: int) -> tuple[GaussianCloud, Tensor, Tensor]:
    """Gaussians in a ball that fills the picture, about ``pixels`` wide; the pose and the intrinsics of a camera."""
    generator = torch.Generator().manual_seed(0)
    made = GaussianCloud(count, DEGREE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        made.means.mul_(0.4)
        made.log_scales.mul_(0.4).add_(math.log(pixels * 4 / side))
        made.sh_rest.mul_(0.1)
    pose = torch.eye(4)
    pose[2, 3] = 4.0
    return made, pose, torch.tensor([[side, 0, side / 2], [0, side, side / 2], [0, 0, 1.0]])


def rasterisation(side: int, pixels: float) -> Kernel:
    def make(count: int) -> Mapping[str, Run]:
        made, pose, intrinsics = cloud(count, pixels, side)

        def own(backend: str) -> None:
            usual = gaussian_rasterizer.backends
            gaussian_rasterizer.backends = lambda like: (backend,)
            options = {"degree": DEGREE, "near": 0.01, "max_alpha": 0.999}
            view = made.render(pose, intrinsics, side, side, BACKGROUND, **options)
            torch.autograd.grad(view.rgb.square().sum(), list(made.parameters()))
            gaussian_rasterizer.backends = usual

        fastest = gaussian_rasterizer.backends(made.means)[0]
        runs: dict[str, Run] = {"own": lambda: own(fastest), "own without numba": lambda: own("torch")}
        if installed("gsplat") and installed("nerfacc") and count <= 10_000:
            runs["gsplat torch"] = lambda: theirs(made, pose, intrinsics, side)
        return runs

    wide = f"{side}x{side}, Gaussians {pixels:g} pixels wide"
    name = f"Gaussian rasteriser, {wide}, forward + backward"
    peers = {"gsplat torch": 20.0, "own without numba": 1.0}
    return Kernel(name, (2_500, 10_000, 40_000) if side < 256 else (50_000, 100_000, 200_000), "Gaussians", make, peers)


def theirs(made: GaussianCloud, pose: Tensor, intrinsics: Tensor, side: int) -> None:
    from gsplat_on_cpu import gsplat_on_cpu

    harmonics = torch.cat([made.sh_constant[None], made.sh_rest]).permute(2, 0, 1)
    shape = (made.means.t(), made.quaternions.t(), made.scales.t(), made.opacities)
    with gsplat_on_cpu() as rasterise:
        options = {"sh_degree": DEGREE, "backgrounds": BACKGROUND[None]}
        image, _, _ = rasterise(*shape, harmonics, pose[None], intrinsics[None], side, side, **options)
    torch.autograd.grad(image.square().sum(), list(made.parameters()))


KERNELS = [rasterisation(128, 1.5), rasterisation(256, 1.0)]
