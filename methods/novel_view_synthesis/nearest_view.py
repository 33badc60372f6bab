"""The training view whose camera is nearest, unchanged: what a method has to beat to have learned the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adlbench.benchmark.api import Cameras, Context, Rendering, TrainingData
from adlbench.methods.base.per_scene import PerSceneMethod
from adlbench.methods.nn.rays import camera_to_world


@dataclass(frozen=True)
class NearestViewPredictor:
    images: Tensor  # uint8 [V, H, W, 3]
    centers: Tensor  # [V, 3], of the cameras
    axes: Tensor  # [V, 3], unit viewing directions
    scene_center: Tensor  # [3]
    near: float
    far: float

    def render(self, cameras: Cameras) -> Rendering:
        """Depth is that of the scene's centre everywhere."""
        centers, axes = camera_axes(cameras.world_to_camera)
        # Distances in units of the scene's, so that a camera that looks away never wins by standing close.
        distance = torch.cdist(centers, self.centers) / (self.scene_center - self.centers).norm(dim=-1).mean()
        nearest = (distance + 1 - axes @ self.axes.T).argmin(dim=1)  # [N]
        rgb = self.images[nearest].float() / 255
        if rgb.shape[1:3] != (cameras.height, cameras.width):
            rgb = F.interpolate(rgb.permute(0, 3, 1, 2), (cameras.height, cameras.width), mode="area").permute(
                0, 2, 3, 1
            )
        depth = ((self.scene_center - centers) * axes).sum(-1).clamp(self.near, self.far)
        shape = rgb.shape[:3]
        return Rendering(rgb, depth[:, None, None].expand(shape), torch.ones(shape, device=rgb.device))


@dataclass(eq=False, kw_only=True)
class NearestView(PerSceneMethod):
    """Nothing is trained: the views are kept."""

    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context = data.schema, context
        self.images = torch.zeros(0, dtype=torch.uint8, device=context.device)
        self.world_to_camera = torch.zeros(0, 4, 4, device=context.device)
        if data.present:
            self.views = self.posed_images(data, context)

    def step(self) -> Mapping[str, Tensor]:
        self.images, self.world_to_camera = self.views.images, self.views.world_to_camera
        self.context.count(self.images.shape[:3].numel())
        return {}

    def predictor(self) -> NearestViewPredictor:
        centers, axes = camera_axes(self.world_to_camera)
        scene_center = torch.tensor(self.schema.scene_center, device=centers.device)
        return NearestViewPredictor(self.images, centers, axes, scene_center, self.schema.near, self.schema.far)


def camera_axes(world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and unit viewing directions [N, 3]: the last column and the z axis of camera-to-world."""
    pose = camera_to_world(world_to_camera)
    return pose[:, :3, 3], pose[:, :3, 2]
