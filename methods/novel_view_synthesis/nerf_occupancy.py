"""NeRF's network with an occupancy grid in place of the coarse network: samples only where there can be something.

The network, encodings and loss are those of Mildenhall et al. 2020 (``nerf``). Which parts of the scene are empty is kept
in a grid that is refreshed from the network's own density, rays are sampled at even steps in the rest, samples that add
nothing to a colour are left out, and a step takes as many rays as fill ``batch_samples`` with the others: Müller et al. 2022,
appendix C and D; nerfacc (Li et al. 2023).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlbench.benchmark.api import Cameras, Context, DataSchema, Rendering, TrainingData
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.nn.fused_mlp import fused
from adlbench.methods.nn.occupancy_grid import OccupancyGrid, Samples
from adlbench.methods.nn.positional_encoding import PositionalEncoding
from adlbench.methods.nn.rays import Rays, camera_rays, sphere_bounds
from adlbench.methods.nn.volume_rendering import accumulate_packed, composite_packed
from adlbench.methods.novel_view_synthesis.nerf import Autocast, NeRF, NeRFNetwork, encode_position

# The network sees a multiple of so many samples: each step has another number of them, and a matrix product in bfloat16
# on a CPU is compiled anew for every shape that it has not met, which takes longer than the product.
PADDED_TO = 512
WORTH_LEAVING_OUT = 0.75  # the share that must be left for it: to find it costs a quarter of a step
MOST_MARCHED = 16  # times the batch: samples before those that add nothing are left out (as in instant-ngp)


class PackedRendering(NamedTuple):
    rgb: Tensor  # [R, 3], composited on the background
    samples: Samples
    weights: Tensor  # [M]
    opacity: Tensor  # [R]


class OccupancyField(nn.Module):
    """One network, the grid that says where to ask it, and how rays are rendered through both."""

    center: Tensor
    background: Tensor

    def __init__(self, settings: OccupancyNeRF, schema: DataSchema):
        super().__init__()
        self.near, self.far = schema.near, schema.far
        self.radius = schema.scene_radius or schema.far
        self.step = 2 * self.radius / settings.steps_across  # world units
        self.stop_below = settings.stop_below
        self.encode_position = PositionalEncoding(3, settings.position_frequencies)
        self.encode_direction = PositionalEncoding(3, settings.direction_frequencies, scale=1.0)
        features = (self.encode_position.out_features, self.encode_direction.out_features)
        self.network = NeRFNetwork(settings.depth, settings.width, settings.skip_layer, *features)
        self.register_buffer("center", torch.tensor(schema.scene_center), persistent=False)
        self.register_buffer("background", torch.tensor(schema.background), persistent=False)
        corner = torch.tensor(schema.scene_center)
        self.grid = OccupancyGrid(corner - self.radius, corner + self.radius, settings.grid_resolution)

    def sample(self, rays: Rays, generator: torch.Generator | None = None) -> Samples:
        near, far = sphere_bounds(rays, self.center, self.radius, self.near, self.far)
        return self.grid.march(rays, near, far, self.step / rays.directions.norm(dim=-1), generator)

    def render(self, rays: Rays, samples: Samples, autocast: Autocast, leave_out: bool = False) -> PackedRendering:
        """Rays [R] through samples of theirs.

        With ``leave_out`` only those that add to a colour are asked with gradients; the others are found without. Where there
        is no density, or too little light is left, a weight is 0 and so is every gradient, ReLU's too: it changes nothing but
        the time (``render_visibility`` of nerfacc, the compaction of instant-ngp).
        """
        ray, depths, lengths = samples
        speed = rays.directions.norm(dim=-1)
        lengths = lengths * speed[ray]
        direction = self.encode_direction(rays.directions / speed[:, None])
        with autocast():
            some = _padded(ray)
            position = self.encode(rays.origins[some] + _padded(depths)[:, None] * rays.directions[some])
            if leave_out:
                with torch.no_grad():
                    density = self.network.density_in_parts(position)[: len(ray)]
                kept = composite_packed(density, lengths, ray, len(speed), self.stop_below).weights.nonzero()[:, 0]
                ray, depths, lengths, position = ray[kept], depths[kept], lengths[kept], position[_padded(kept)]
            raw, rgb = self.network(position, direction, _padded(ray))
        weights, _, opacity = composite_packed(F.relu(raw[: len(ray)]), lengths, ray, len(speed), self.stop_below)
        colour = accumulate_packed(weights, rgb[: len(ray)], ray, len(speed))
        colour = colour + (1 - opacity)[:, None] * self.background
        return PackedRendering(colour, Samples(ray, depths, lengths), weights, opacity)

    def density(self, points: Tensor, autocast: Autocast) -> Tensor:
        with autocast():
            return self.network.density_in_parts(self.encode(points))

    def encode(self, points: Tensor) -> Tensor:
        return encode_position(self.encode_position, (points - self.center) / self.radius)


def _padded(values: Tensor) -> Tensor:
    """With zeros behind [M], to a multiple of ``PADDED_TO`` where that matters."""
    return values if fused(values) else F.pad(values, (0, -len(values) % PADDED_TO))


@dataclass(frozen=True)
class OccupancyNeRFPredictor:
    """Renders with samples in the middle of even steps, so that the same camera always gives the same picture."""

    field: OccupancyField
    autocast: Autocast
    chunk: int = 1024  # rays at a time

    def render(self, cameras: Cameras) -> Rendering:
        rays = camera_rays(cameras)
        shape = rays.origins.shape[:-1]
        origins, directions = (x.reshape(-1, 3).split(self.chunk) for x in rays)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for origin, direction in zip(origins, directions):
            some = Rays(origin, direction)
            rgb, samples, weights, opacity = self.field.render(some, self.field.sample(some), self.autocast)
            depth = accumulate_packed(weights, samples.depths[:, None], samples.ray, len(origin))[:, 0]
            parts.append((rgb, depth / opacity.clamp(min=1e-8), opacity))
        rgb, depth, opacity = (torch.cat(x) for x in zip(*parts))
        return Rendering(rgb.reshape(*shape, 3).clamp(0, 1), depth.reshape(shape), opacity.reshape(shape))


@dataclass(eq=False, kw_only=True)
class OccupancyNeRF(NeRF):
    """Settings of the coarse and fine samples are not used."""

    shares_batches: ClassVar[bool] = False  # each device would march through another number of samples
    synchronises: ClassVar[str] = "the number of samples in occupied cells decides the shapes of tensors"

    batch_samples: int = 262_144  # in a step, about, that add to a colour
    grid_resolution: int = 128
    steps_across: int = 1024  # the scene's bounding sphere
    grid_every: int = 16  # steps between two updates of the grid
    grid_warmup: int = 256  # steps in which all cells are looked at, then a quarter
    grid_decay: float = (
        0.95  # of a cell's density, from one update to the next: fog of the first steps is to be forgotten
    )
    occupied_alpha: float = 0.01  # a cell counts above the density that has this opacity over one step
    stop_below: float = 1e-4  # transmittance

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        if data.present:
            self.views = self.posed_images(data, context)
        with seeded_init(context):
            self.field = OccupancyField(self, data.schema).to(context.device)  # type: ignore[assignment]
        self.optimizer = torch.optim.Adam(self.field.parameters(), lr=self.learning_rate, eps=1e-7, fused=True)
        self.rays_a_step = max(1, self.batch_samples // self.steps_across)
        self.leave_out = True
        if data.present:
            self.compile_loops()

    def render_for_loss(self, rays: Rays, generator: torch.Generator) -> Tensor:
        field: OccupancyField = self.field  # type: ignore[assignment]
        return field.render(rays, field.sample(rays, generator), self.context.autocast, leave_out=True).rgb.sum()

    def step(self) -> Mapping[str, Tensor]:
        field: OccupancyField = self.field  # type: ignore[assignment]
        if self.context.step % self.grid_every == 0:
            self._update_grid(field)
            self.leave_out = True
        generator = self.context.generator("rays")
        crop = self.precrop_fraction if self.context.step < self.precrop_steps else 1.0
        rays, target = self.views.sample_rays(self.rays_a_step, generator, crop)
        samples = field.sample(rays, generator)
        rendered = field.render(rays, samples, self.context.autocast, self.leave_out)
        if self.leave_out:  # tried after each update of the grid, and kept up where it pays
            self.leave_out = len(rendered.samples.ray) < WORTH_LEAVING_OUT * len(samples.ray)
        loss = F.mse_loss(rendered.rgb, target)
        decay = (self.final_learning_rate / self.learning_rate) ** self.context.progress
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * decay
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.context.count(self.rays_a_step)
        # As many rays as fill the batch, with less than half a change from one step to the next.
        filled = max(1, len(rendered.samples.ray), len(samples.ray) / MOST_MARCHED)
        wanted = self.rays_a_step * self.batch_samples / filled
        limit = self.batch_rays
        self.rays_a_step = round(min(max(wanted, self.rays_a_step / 1.5, 1), self.rays_a_step * 1.5 + 1, limit))
        return {"loss": loss.detach(), "psnr": -10 * torch.log10(loss.detach())}

    def predictor(self) -> OccupancyNeRFPredictor:  # type: ignore[override]
        field = copy.deepcopy(self.field).eval().requires_grad_(False)
        return OccupancyNeRFPredictor(field, self.context.autocast)  # type: ignore[arg-type]

    def _update_grid(self, field: OccupancyField) -> None:
        share = 1.0 if self.context.step < self.grid_warmup else 0.25
        threshold = -math.log1p(-self.occupied_alpha) / field.step
        generator = self.context.generator("grid")
        field.grid.update(
            lambda points: field.density(points, self.context.autocast), threshold, generator, share, self.grid_decay
        )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"rays_a_step": self.rays_a_step, "leave_out": self.leave_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = ("rays_a_step", "leave_out")
        super().load_state_dict({name: value for name, value in state.items() if name not in own})
        self.rays_a_step, self.leave_out = state["rays_a_step"], state["leave_out"]
