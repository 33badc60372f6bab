"""Random changes to batches of point clouds, on the CPU and from a given generator only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PER_POINT = (
    "points",
    "normals",
    "colours",
    "point_label",
    "point_instance",
)  # the fields that have one entry per point


def choose_points(batch: dict[str, Tensor], count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """``count`` of each cloud's points (all of them where there are no more), without repetition.

    Every cloud of the batch gives the same positions of its list: stored points are independent samples of a surface.
    """
    available = batch["points"].shape[1]
    if count >= available:
        return batch
    index = torch.randperm(available, generator=generator)[:count]
    return {name: value[:, index] if name in PER_POINT else value for name, value in batch.items()}


def random_rotations(count: int, up_axis: int, generator: torch.Generator) -> Tensor:
    """[count, 3, 3], to multiply row vectors with: angles uniform in [0, 2 pi) about ``up_axis`` (0 x, 1 y, 2 z)."""
    angle = torch.rand(count, generator=generator) * (2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    first, second = (up_axis + 1) % 3, (up_axis + 2) % 3
    matrix = torch.zeros(count, 3, 3)
    matrix[:, up_axis, up_axis] = 1.0
    matrix[:, first, first] = cos
    matrix[:, first, second] = sin
    matrix[:, second, first] = -sin
    matrix[:, second, second] = cos
    return matrix


def rotate(batch: dict[str, Tensor], up_axis: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Each cloud, its ``points`` and ``normals`` [B, P, 3], by an angle of its own about ``up_axis``."""
    matrix = random_rotations(len(batch["points"]), up_axis, generator)
    return {name: value @ matrix if name in ("points", "normals") else value for name, value in batch.items()}


def jitter(points: Tensor, sigma: float, clip: float, generator: torch.Generator) -> Tensor:
    """Adds Gaussian noise of standard deviation ``sigma`` to every coordinate, clipped to [-clip, clip]."""
    noise = torch.randn(points.shape, generator=generator)
    return points + (noise * sigma).clamp_(-clip, clip)
