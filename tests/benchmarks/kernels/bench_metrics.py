"""Distances between point sets and between pictures, and surfaces from fields, beside their peers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
import torch
from measure import Kernel, Run, installed
from scipy.spatial.distance import cdist
from skimage.measure import marching_cubes
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.metrics.geometry import earth_movers_distance
from adlbench.benchmark.metrics.image import ssim
from adlbench.benchmark.metrics.isosurface import extract_mesh
from adlbench.methods.nn import ssim_loss
from adlbench.methods.nn.chamfer import chamfer


# -------------------------------------------------------------------------------------------------------------- points
def two_spheres(points: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(2, points, 3, generator=generator, dtype=torch.float64)
    one, other = nn.functional.normalize(directions, dim=-1) + 0.005 * torch.randn(2, points, 3, generator=generator)
    return one, other


def chamfer_distance(points: int) -> Mapping[str, Run]:
    one, other = two_spheres(points)
    runs: dict[str, Run] = {"own": lambda: chamfer(one, other, squared=False)}
    if installed("point_cloud_utils"):
        utils = importlib.import_module("point_cloud_utils")
        first, second = one.numpy(), other.numpy()
        runs["point-cloud-utils"] = lambda: utils.chamfer_distance(first, second)
    return runs


def earth_movers(points: int, more: int = 0) -> Mapping[str, Run]:
    """POT's exact solver for equal sets; for others its Sinkhorn in logarithms, with as much entropy as ours ends with."""
    one, other = (x.numpy() for x in two_spheres(points + more))
    one = one[:points]
    weights, others = np.full(points, 1 / points), np.full(points + more, 1 / (points + more))
    runs: dict[str, Run] = {"own": lambda: earth_movers_distance(one, other)}
    if installed("ot"):
        ot = importlib.import_module("ot")

        def theirs() -> float:
            cost = cdist(one, other)
            if not more:
                return float(ot.emd2(weights, others, cost))
            options = {"method": "sinkhorn_log", "numItermax": 10_000, "stopThr": 1e-4}
            return float(ot.sinkhorn2(weights, others, cost, 2e-3 * cost.max(), **options))

        runs["POT"] = theirs
    return runs


# ------------------------------------------------------------------------------------------------------------ pictures
def pictures(side: int) -> tuple[Tensor, Tensor]:
    one, other = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return one, 0.5 * one + 0.5 * other


def similarity(side: int) -> Mapping[str, Run]:
    one, other = pictures(side)
    first, second = one.numpy(), other.numpy()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return {
        "own": lambda: ssim(one, other),
        "scikit-image": lambda: structural_similarity(first, second, channel_axis=0, **options),
    }


def similarity_loss(side: int) -> Mapping[str, Run]:
    one, other = pictures(side)
    one.requires_grad_()
    offset = torch.arange(11.0) - 5
    window = torch.exp(-offset.square() / (2 * 1.5**2))
    window = window / window.sum()
    kernel = (window[:, None] * window).expand(3, 1, 11, 11).contiguous()

    def blur(x: Tensor) -> Tensor:
        return functional.conv2d(x[None], kernel, padding=5, groups=3)[0]

    def plain() -> object:  # the released code of 3D Gaussian Splatting
        mean_x, mean_y = blur(one), blur(other)
        xx, yy = blur(one * one) - mean_x**2, blur(other * other) - mean_y**2
        xy = blur(one * other) - mean_x * mean_y
        upper = (2 * mean_x * mean_y + 1e-4) * (2 * xy + 9e-4)
        return torch.autograd.grad((upper / ((mean_x**2 + mean_y**2 + 1e-4) * (xx + yy + 9e-4))).mean(), one)

    return {"own": lambda: torch.autograd.grad(ssim_loss.ssim(one, other), one), "plain torch": plain}


# ------------------------------------------------------------------------------------------------------------ surfaces
def surface(resolution: int) -> Mapping[str, Run]:
    axis = np.linspace(-1, 1, resolution + 1, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    values = np.sqrt(x * x + y * y + z * z) - np.float32(0.6) + np.float32(0.05) * np.sin(9 * x) * np.sin(7 * y)
    return {
        "own": lambda: extract_mesh(values),
        "scikit-image": lambda: marching_cubes(
            values, 0.0, spacing=(2 / resolution,) * 3, gradient_direction="descent"
        ),
    }


KERNELS = [
    Kernel(
        "Chamfer distance, forward", (3_000, 10_000, 30_000), "points", chamfer_distance, {"point-cloud-utils": 1.0}
    ),
    Kernel("earth mover's distance of equal sets", (250, 500, 1_000), "points", earth_movers, {"POT": 1.0}),
    Kernel(
        "earth mover's distance by Sinkhorn, ten points more",
        (50, 100, 200),
        "points",
        lambda points: earth_movers(points, 10),
        {"POT": 1.0},
    ),
    Kernel("SSIM of colour pictures, metric", (64, 256, 1_024), "pixels a side", similarity, {"scikit-image": 1.0}),
    Kernel(
        "SSIM of colour pictures, loss, forward + backward",
        (64, 256, 1_024),
        "pixels a side",
        similarity_loss,
        {"plain torch": 1.0},
    ),
    Kernel("marching cubes with its checks", (32, 64, 128), "cells an axis", surface, {"scikit-image": 0.9}),
]
