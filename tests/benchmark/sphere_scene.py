"""A tiny posed scene with a closed form: a sphere coloured by its normal, seen from around, on white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adlbench.benchmark.api import ArraySplit, Budget, Cameras, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.nn.rays import camera_rays

RADIUS, DISTANCE = 0.6, 3.0


def context(precision: str = "fp32", seed: int = 0, steps: int = 10) -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision=precision,
        budget=Budget(steps=steps),
        work_folder=Path("."),
        seed_parts=("test", seed),
        clock=Clock(),
    )


def orbit(views: int, size: int, turn: float = 0.0) -> Cameras:
    """Cameras on a circle around the z axis, a little above, looking at the origin."""
    poses = []
    for i in range(views):
        angle = torch.tensor(turn + 2 * torch.pi * i / views)
        eye = DISTANCE * torch.stack([angle.cos() * 0.9, angle.sin() * 0.9, torch.tensor(0.19**0.5)])
        forward = -eye / eye.norm()
        right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
        right = right / right.norm()
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])  # rows: x, y, z of the camera
        pose = torch.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
        poses.append(pose)
    focal = 1.6 * size
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return Cameras(torch.stack(poses), intrinsics.repeat(views, 1, 1), size, size)


def photograph(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """uint8 images [N, H, W, 3] and z-depth [N, H, W] of the sphere."""
    rays = camera_rays(cameras)
    a, b = rays.directions.square().sum(-1), (rays.origins * rays.directions).sum(-1)
    discriminant = b * b - a * (rays.origins.square().sum(-1) - RADIUS**2)
    depth = torch.where(discriminant > 0, (-b - discriminant.clamp_min(0).sqrt()) / a, 0.0)
    normal = (rays.origins + depth[..., None] * rays.directions) / RADIUS
    rgb = torch.where((depth > 0)[..., None], 0.5 + 0.4 * normal, 1.0)
    return (rgb * 255).round().to(torch.uint8), depth


def views(number: int = 12, size: int = 16, turn: float = 0.0) -> ArraySplit:
    cameras = orbit(number, size, turn)
    image, depth = photograph(cameras)
    return ArraySplit(image=image, depth=depth, intrinsics=cameras.intrinsics, world_to_camera=cameras.world_to_camera)


def schema(split: ArraySplit, **changes: Any) -> DataSchema:
    height, width = split.fields["image"].shape[1:3]
    known: dict[str, Any] = {
        "modality": Modality.POSED_IMAGES,
        "fields": ("image", "intrinsics", "world_to_camera", "depth"),
        "num_train": len(split),
        "num_test": 4,
        "channels": 3,
        "image_size": (height, width),
        "background": (1.0, 1.0, 1.0),
        "near": 2.0,
        "far": 4.0,
        "scene_radius": 0.8,
    }
    return DataSchema(**(known | changes))


def sphere_scene(number: int = 12, size: int = 16, **changes: Any) -> TrainingData:
    split = views(number, size)
    return TrainingData(schema(split, **changes), split)
