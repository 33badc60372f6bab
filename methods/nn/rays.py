"""Rays of pinhole cameras. OpenCV axes (x right, y down, z forward), pixel centres at +0.5.

A direction is not normalised: its component along the viewing direction is 1. The parameter t of a point o + t d is then
its z-depth; its distance from the camera is t |d|. NeRF's near and far planes are planes in this sense.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adlbench.benchmark.api import Cameras


class Rays(NamedTuple):
    origins: Tensor  # [..., 3], world units
    directions: Tensor  # [..., 3], z-depth 1 in the camera's frame

    def at(self, depths: Tensor) -> Tensor:
        """Points at z-depths [..., S]: [..., S, 3]."""
        return self.origins[..., None, :] + depths[..., None] * self.directions[..., None, :]

    def distance(self, depths: Tensor) -> Tensor:
        """Distance from the camera for z-depths [..., S] or differences of them."""
        return depths * self.directions.norm(dim=-1, keepdim=True)


def camera_to_world(world_to_camera: Tensor) -> Tensor:
    """Inverse of [..., 4, 4], in double precision: a camera far from the origin would lose digits otherwise."""
    return torch.linalg.inv(world_to_camera.double()).to(world_to_camera.dtype)


def unproject(pixels: Tensor, intrinsics: Tensor) -> Tensor:
    """Directions in the camera's frame, with z = 1, for pixel coordinates [..., 2] and [..., 3, 3] (with skew)."""
    y = (pixels[..., 1] - intrinsics[..., 1, 2]) / intrinsics[..., 1, 1]
    x = (pixels[..., 0] - intrinsics[..., 0, 2] - intrinsics[..., 0, 1] * y) / intrinsics[..., 0, 0]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def rays_through(pixels: Tensor, intrinsics: Tensor, pose: Tensor) -> Rays:
    """Rays through pixel coordinates [..., 2] (column, row; a centre is at +0.5) of cameras with camera-to-world ``pose``
    [..., 4, 4]. In the type that they have, autocast or not: with 8 bits a direction would miss its pixel."""
    with torch.autocast(pose.device.type, enabled=False):
        directions = (pose[..., :3, :3] @ unproject(pixels, intrinsics)[..., None])[..., 0]
    return Rays(pose[..., :3, 3].expand_as(directions), directions)


def pixel_centres(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """[H, W, 2]: (column + 0.5, row + 0.5)."""
    rows = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    columns = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)


def camera_rays(cameras: Cameras) -> Rays:
    """One ray through every pixel's centre: origins and directions [N, H, W, 3]."""
    pixels = pixel_centres(cameras.height, cameras.width, cameras.intrinsics.device)
    pose = camera_to_world(cameras.world_to_camera)[:, None, None]
    return rays_through(pixels.expand(len(cameras), -1, -1, -1), cameras.intrinsics[:, None, None], pose)


def sphere_bounds(rays: Rays, center: Tensor, radius: float, near: float, far: float) -> tuple[Tensor, Tensor]:
    """z-depths [...] between which a ray is inside a sphere, and within [near, far].

    A ray that misses the sphere gets the empty interval near = far, at its closest approach to the centre.
    """
    squared = rays.directions.square().sum(-1)
    offset = center - rays.origins
    closest = (offset * rays.directions).sum(-1) / squared
    miss = (
        (offset - closest[..., None] * rays.directions).square().sum(-1)
    )  # squared distance of the line to the centre
    half = ((radius**2 - miss).clamp_min(0) / squared).sqrt()
    return (closest - half).clamp(near, far), (closest + half).clamp(near, far)
