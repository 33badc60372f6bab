"""NewMethod: a grid of densities and colours, rendered along rays, to start from. Replace ``Grid`` by your own field.

AUTHORS, TITLE, VENUE YEAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from adlbench.benchmark.api import Cameras, Context, DataSchema, Rendering, TrainingData
from adlbench.methods.base.per_scene import PerSceneMethod
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import frozen_copy
from adlbench.methods.nn.rays import Rays, camera_rays, sphere_bounds
from adlbench.methods.nn.volume_rendering import (
    accumulate,
    composite,
    expected_depth,
    interval_lengths,
    stratified_depths,
)


class Grid(nn.Module):
    """Density and colour at the corners of a cube around the scene, trilinear between them."""

    center: Tensor
    background: Tensor

    def __init__(self, schema: DataSchema, resolution: int, samples: int):
        super().__init__()
        self.near, self.far, self.radius, self.samples = schema.near, schema.far, schema.scene_radius, samples
        self.values = nn.Parameter(0.1 * torch.randn(1, 4, resolution, resolution, resolution))
        self.register_buffer("center", torch.tensor(schema.scene_center))
        self.register_buffer("background", torch.tensor(schema.background))

    def render(self, rays: Rays, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Colour [R, 3], depth [R] and opacity [R] of rays [R]; depths are random with a generator."""
        near, far = sphere_bounds(rays, self.center, self.radius, self.near, self.far)
        depths = stratified_depths(near, far, self.samples, generator)
        where = (rays.at(depths) - self.center) / self.radius  # [R, S, 3] in [-1, 1]
        values = functional.grid_sample(self.values, where[None, :, :, None], align_corners=True, padding_mode="zeros")
        density, colour = values[0, :, :, :, 0].permute(1, 2, 0).split([1, 3], dim=-1)
        weights, _, opacity = composite(
            10 * functional.softplus(density[..., 0] - 2), interval_lengths(depths, rays.directions, far)
        )
        rgb = accumulate(weights, colour.sigmoid()) + (1 - opacity)[:, None] * self.background
        return rgb, expected_depth(weights, depths)[0], opacity


@dataclass(eq=False, kw_only=True)
class NewMethod(PerSceneMethod):
    """The fields are the hyperparameters; name them as the paper does."""

    resolution: int = 64
    samples: int = 96  # along a ray
    batch_rays: int = 1024
    learning_rate: float = 0.1

    def skip(self, schema: DataSchema) -> str | None:
        return super().skip(schema) or (None if schema.scene_radius > 0 else "needs the scene's radius")

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        if data.present:
            self.views = self.posed_images(data, context)
        with seeded_init(context):
            self.grid = Grid(data.schema, self.resolution, self.samples).to(context.device)
        self.optimizer = optim.Adam(self.grid.parameters(), lr=self.learning_rate)

    def step(self) -> Mapping[str, Tensor]:
        generator = self.context.generator("rays")
        rays, target = self.views.sample_rays(self.batch_rays, generator)
        loss = functional.mse_loss(self.grid.render(rays, generator)[0], target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.context.count(self.batch_rays)
        return {"loss": loss.detach()}

    def predictor(self) -> NewMethodPredictor:
        return NewMethodPredictor(frozen_copy(self.grid))


class NewMethodPredictor:
    def __init__(self, grid: nn.Module):
        self.grid = grid

    def render(self, cameras: Cameras) -> Rendering:
        rays = camera_rays(cameras)  # [N, H, W, 3]
        shape = rays.origins.shape[:-1]
        parts = [
            self.grid.render(Rays(origins, directions))  # type: ignore[operator]
            for origins, directions in zip(*(field.reshape(-1, 3).split(4096) for field in rays))
        ]
        rgb, depth, opacity = (torch.cat(part) for part in zip(*parts))
        return Rendering(rgb.view(*shape, 3).clamp(0, 1), depth.view(shape), opacity.view(shape))
