"""Rays: pixel centres, axes, z-depth, and the sphere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import Cameras
from adlbench.methods.nn.rays import (
    Rays,
    camera_rays,
    camera_to_world,
    pixel_centres,
    rays_through,
    sphere_bounds,
    unproject,
)


def some_cameras(n: int = 3, width: int = 7, height: int = 5) -> Cameras:
    """Random rigid poses; focal lengths, centre and skew all different."""
    generator = torch.Generator().manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    pose = torch.eye(4).repeat(n, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = rotation, torch.randn(n, 3, generator=generator)
    intrinsics = torch.tensor([[6.0, 0.3, 3.4], [0.0, 8.0, 2.2], [0.0, 0.0, 1.0]]).repeat(n, 1, 1)
    return Cameras(pose, intrinsics, width, height)


def project(points: Tensor, world_to_camera: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates and z-depth of [M, 3] by the textbook formula."""
    inside = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    pixels = inside @ intrinsics.T
    return pixels[:, :2] / pixels[:, 2:], inside[:, 2]


def test_the_ray_of_a_pixel_projects_onto_its_centre_at_its_z_depth() -> None:
    cameras = some_cameras()
    rays = camera_rays(cameras)
    assert rays.origins.shape == rays.directions.shape == (3, 5, 7, 3)
    for camera in range(3):
        for depth in (0.5, 4.0):
            points = rays.origins[camera] + depth * rays.directions[camera]
            pixels, z = project(points.view(-1, 3), cameras.world_to_camera[camera], cameras.intrinsics[camera])
            torch.testing.assert_close(pixels.view(5, 7, 2), pixel_centres(5, 7), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(z, torch.full_like(z, depth))


def test_autocast_changes_no_ray() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = camera_rays(some_cameras())
    assert all(map(torch.equal, inside, camera_rays(some_cameras())))


def test_pixel_centres_are_at_one_half_columns_first() -> None:
    assert pixel_centres(2, 3)[1, 2].tolist() == [2.5, 1.5]


def test_axes_are_right_down_forward() -> None:
    """With the camera at the origin, a pixel to the right has positive x, one below positive y."""
    intrinsics = torch.tensor([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]])
    assert unproject(torch.tensor([10.0, 5.0]), intrinsics).tolist() == [0.5, 0.0, 1.0]
    assert unproject(torch.tensor([5.0, 10.0]), intrinsics).tolist() == [0.0, 0.5, 1.0]


def test_directions_are_not_normalised_and_distance_takes_that_into_account() -> None:
    rays = rays_through(torch.tensor([[30.0, 5.0]]), torch.tensor([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]]), torch.eye(4))
    assert rays.directions.norm().item() == pytest.approx(math.hypot(2.5, 1))
    depths = torch.tensor([[2.0, 3.0]])
    torch.testing.assert_close(rays.distance(depths), rays.at(depths).norm(dim=-1))


def test_inverse_of_a_pose() -> None:
    pose = some_cameras().world_to_camera
    torch.testing.assert_close(camera_to_world(pose) @ pose, torch.eye(4).expand(3, 4, 4), atol=1e-6, rtol=0)


def test_sphere_bounds_are_where_the_ray_enters_and_leaves() -> None:
    origin = torch.tensor([[0.0, 0.0, -4.0]] * 3)
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.2, 0.0, 1.0], [1.0, 1.0, 1.0]])  # through, off centre, past
    center = torch.tensor([0.0, 0.0, 0.5])
    near, far = sphere_bounds(Rays(origin, directions), center, 1.5, 0.0, 100.0)
    assert (near[0].item(), far[0].item()) == pytest.approx((3.0, 6.0))
    for depth in (near[1], far[1]):
        assert (origin[1] + depth * directions[1] - center).norm().item() == pytest.approx(1.5, abs=1e-5)
    assert near[2] == far[2]
    near, far = sphere_bounds(Rays(origin, directions), center, 1.5, 3.5, 5.0)
    assert (near[0].item(), far[0].item()) == (3.5, 5.0)
