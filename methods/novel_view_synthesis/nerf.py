"""NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis (Mildenhall et al., ECCV 2020).

Two MLPs map a position and a viewing direction to a density and a colour. The coarse one is evaluated at stratified
depths along a ray; its weights say where the fine one is evaluated in addition (section 5.2). Both are trained on the
squared error of the composited colour. Sections, figures and equations below are the paper's; what it leaves open
(initialisation, the cropped start, the endless last interval) follows the authors' released code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlbench.benchmark.api import Cameras, Context, DataSchema, Rendering, TrainingData
from adlbench.methods.base.per_scene import PerSceneMethod
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.nn.fused_mlp import Layer, fused, fused_mlp
from adlbench.methods.nn.positional_encoding import PositionalEncoding
from adlbench.methods.nn.rays import Rays, camera_rays, sphere_bounds
from adlbench.methods.nn.volume_rendering import (
    accumulate,
    composite,
    expected_depth,
    interval_lengths,
    sample_pdf,
    stratified_depths,
)

Autocast = Callable[[], AbstractContextManager[Any]]


class NeRFNetwork(nn.Module):
    """Figure 7: ``depth`` layers of ``width`` on the encoded position, which joins in again after layer ``skip``; the
    density from there; the colour through one more layer of half the width that also sees the encoded direction."""

    def __init__(self, depth: int, width: int, skip: int, position_features: int, direction_features: int):
        super().__init__()
        self.skip, self.position_features = skip, position_features
        inputs = [position_features] + [width + position_features * (i == skip) for i in range(depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in inputs)
        self.density = nn.Linear(width, 1)
        self.feature = nn.Linear(width, width)
        self.view = nn.Linear(width + direction_features, width // 2)
        self.colour = nn.Linear(width // 2, 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # what the released code's framework does by default
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def trunk(self, position: Tensor) -> Tensor:
        """Encoded positions [..., P] -> [..., width]."""
        h = position
        for i, layer in enumerate(self.layers):
            h = F.relu(layer(h), inplace=True)
            if self._joins(i + 1):
                h = torch.cat([position.to(h.dtype), h], dim=-1)
        return h

    def _joins(self, layer: int) -> bool:
        return layer == self.skip + 1 and layer < len(self.layers)

    def _fused_trunk(self) -> list[Layer]:
        return [Layer(each.weight, each.bias, joins=self._joins(i)) for i, each in enumerate(self.layers)]  # type: ignore[arg-type]

    @torch.no_grad()
    def density_in_parts(self, position: Tensor) -> Tensor:
        """Encoded positions [M, P] -> density [M], without a gradient. On a CPU in parts that stay in its cache."""
        parts = position.split(4096 if position.device.type == "cpu" else 2**18)
        return F.relu(torch.cat([self._raw_density(part) for part in parts]))

    def _raw_density(self, position: Tensor) -> Tensor:
        if not fused(position):
            return self.density(self.trunk(position))[..., 0]  # type: ignore[no-any-return]
        layers = [*self._fused_trunk(), Layer.linear(self.density.weight, self.density.bias)]
        return fused_mlp(position, layers)[1][..., 0]

    def forward(self, position: Tensor, direction: Tensor, ray: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encoded positions and one encoded direction per ray [R, V] -> raw density and rgb [..., 3].

        Positions are [R, S, P], or [M, P] with ``ray`` [M], ascending, saying through which ray each sample is seen.
        """
        # The feature has no activation. So its layer and the part of the next that reads it are one matrix, which the density
        # joins: one product with h in place of three. The direction's part is the same for a whole ray.
        width, view = self.feature.out_features, self.view.weight
        with torch.autocast(position.device.type, enabled=False):
            weight = view[:, :width] @ self.feature.weight
            bias = self.view.bias + view[:, :width] @ self.feature.bias
        seen_from = F.linear(direction, view[:, width:], bias)
        if fused(position):
            if ray is None:
                ray = torch.arange(len(position)).repeat_interleave(position.shape[1])
            seen = Layer(weight, seen_from.float(), (self.density.weight, self.density.bias))
            layers = [*self._fused_trunk(), seen, Layer.linear(self.colour.weight, self.colour.bias)]
            raw = fused_mlp(position, layers, ray)[1]
            return raw[..., 0], torch.sigmoid(raw[..., 1:])
        both = F.linear(self.trunk(position), torch.cat([weight, self.density.weight]))
        colour = self.colour(F.relu(both[..., :-1] + (seen_from[:, None] if ray is None else seen_from[ray])))
        return (both[..., -1] + self.density.bias).float(), torch.sigmoid(colour.float())


def encode_position(encoding: PositionalEncoding, points: Tensor) -> Tensor:
    """[..., 3] -> [..., P], as the network reads it under the present autocast."""
    encoded: Tensor = encoding.for_fused(points) if fused(points) else encoding(points)
    return encoded


class RayRendering(NamedTuple):
    rgb: Tensor  # [R, 3], composited on the background
    depths: Tensor  # [R, S], z-depths of the samples
    weights: Tensor  # [R, S]
    opacity: Tensor  # [R]


class RadianceField(nn.Module):
    """The coarse and the fine network of one scene, and how rays are rendered through them."""

    center: Tensor
    background: Tensor

    def __init__(self, settings: NeRF, schema: DataSchema):
        super().__init__()
        self.coarse_samples, self.fine_samples = settings.coarse_samples, settings.fine_samples
        self.density_noise = settings.density_noise
        self.near, self.far = schema.near, schema.far
        self.sphere = schema.scene_radius if settings.clip_to_sphere and schema.scene_radius > 0 else None
        self.scale = schema.scene_radius or schema.far  # positions are encoded in units of it
        self.encode_position = PositionalEncoding(3, settings.position_frequencies)
        self.encode_direction = PositionalEncoding(3, settings.direction_frequencies, scale=1.0)
        features = (self.encode_position.out_features, self.encode_direction.out_features)
        self.coarse = NeRFNetwork(settings.depth, settings.width, settings.skip_layer, *features)
        self.fine = NeRFNetwork(settings.depth, settings.width, settings.skip_layer, *features)
        self.register_buffer("center", torch.tensor(schema.scene_center), persistent=False)
        self.register_buffer("background", torch.tensor(schema.background), persistent=False)

    def render(
        self, rays: Rays, autocast: Autocast, generator: torch.Generator | None = None
    ) -> tuple[RayRendering, RayRendering]:
        """Coarse and fine rendering of rays [R]. With a generator depths (and, if asked for, densities) are random."""
        direction = self.encode_direction(F.normalize(rays.directions, dim=-1))
        if self.sphere is not None:
            near, far = sphere_bounds(rays, self.center, self.sphere, self.near, self.far)
        else:
            near, far = (torch.full_like(rays.origins[:, 0], bound) for bound in (self.near, self.far))

        def evaluate(network: nn.Module, depths: Tensor) -> RayRendering:
            points = (rays.at(depths) - self.center) / self.scale
            with autocast():
                density, rgb = network(encode_position(self.encode_position, points), direction)
            if generator is not None and self.density_noise > 0:
                density = density + self.density_noise * torch.randn(
                    density.shape, device=density.device, generator=generator
                )
            # Outside the sphere is nothing but background; a far plane may cut through the scene.
            lengths = interval_lengths(depths, rays.directions, far if self.sphere is not None else None)
            weights, _, opacity = composite(F.relu(density), lengths)
            colour = accumulate(weights, rgb) + (1 - opacity)[:, None] * self.background
            return RayRendering(colour, depths, weights, opacity)

        coarse = evaluate(self.coarse, stratified_depths(near, far, self.coarse_samples, generator))
        middle = 0.5 * (coarse.depths[:, 1:] + coarse.depths[:, :-1])
        more = sample_pdf(middle, coarse.weights[:, 1:-1].detach(), self.fine_samples, generator)
        depths = torch.cat([coarse.depths, more], dim=-1).sort(dim=-1).values
        return coarse, evaluate(self.fine, depths)


@dataclass(frozen=True)
class NeRFPredictor:
    """Renders with evenly spread samples, so that the same camera always gives the same picture."""

    field: RadianceField
    autocast: Autocast
    chunk: int = 1024  # rays at a time: their activations stay in the cache of a CPU

    def render(self, cameras: Cameras) -> Rendering:
        rays = camera_rays(cameras)
        shape = rays.origins.shape[:-1]  # [N, H, W]
        origins, directions = (x.reshape(-1, 3).split(self.chunk) for x in rays)
        parts: list[tuple[Tensor, ...]] = []
        for origin, direction in zip(origins, directions):
            fine = self.field.render(Rays(origin, direction), self.autocast)[1]
            parts.append((fine.rgb, *expected_depth(fine.weights, fine.depths), fine.opacity))
        rgb, depth, variance, opacity = (torch.cat(x) for x in zip(*parts))
        return Rendering(
            rgb=rgb.reshape(*shape, 3).clamp(0, 1),
            depth=depth.reshape(shape),
            opacity=opacity.reshape(shape),
            extras={"depth_variance": variance.reshape(shape)},
        )


@dataclass(eq=False, kw_only=True)
class NeRF(PerSceneMethod):
    """The defaults are those of the paper and of its configuration for the synthetic scenes."""

    shares_batches: ClassVar[bool] = True

    depth: int = 8
    width: int = 256
    skip_layer: int = 4  # the position joins in again after this layer, counted from 0
    position_frequencies: int = 10
    direction_frequencies: int = 4
    coarse_samples: int = 64  # N_c
    fine_samples: int = 128  # N_f, in addition
    batch_rays: int = 1024
    learning_rate: float = 5e-4
    final_learning_rate: float = 5e-5  # at the end of the budget, after an exponential decay
    precrop_steps: int = 500  # from the central half of the images first: otherwise all-white can be a trap
    precrop_fraction: float = 0.5
    density_noise: float = 0.0  # standard deviation; 1 for real scenes (appendix A)
    clip_to_sphere: bool = False  # sample a ray only where it is inside the scene's bounding sphere

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        if data.present:
            self.views = self.posed_images(data, context)
        with seeded_init(context):
            self.field = RadianceField(self, data.schema).to(context.device)
        # eps is the default of the released code's framework
        self.optimizer = torch.optim.Adam(self.field.parameters(), lr=self.learning_rate, eps=1e-7, fused=True)
        if data.present:
            self.compile_loops()

    def compile_loops(self) -> None:
        """Take what numba compiles for the first step out of the training's time: seconds, once on a machine."""
        if self.context.device.type == "cpu":
            rays = Rays(torch.zeros(2, 3), torch.ones(2, 3))
            self.render_for_loss(rays, torch.Generator().manual_seed(0)).backward()
            self.optimizer.zero_grad(set_to_none=True)

    def render_for_loss(self, rays: Rays, generator: torch.Generator) -> Tensor:
        """Something that has the gradients of a step."""
        coarse, fine = self.field.render(rays, self.context.autocast, generator)
        return (coarse.rgb + fine.rgb).sum()

    def step(self) -> Mapping[str, Tensor]:
        generator = self.context.generator("rays")
        crop = self.precrop_fraction if self.context.step < self.precrop_steps else 1.0
        rays, target = self.views.sample_rays(self.batch_rays, generator, crop)
        rays, target = Rays(*map(self.context.share, rays)), self.context.share(target)
        coarse, fine = self.field.render(rays, self.context.autocast, generator)
        coarse_loss, fine_loss = F.mse_loss(coarse.rgb, target), F.mse_loss(fine.rgb, target)
        decay = (self.final_learning_rate / self.learning_rate) ** self.context.progress
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * decay
        self.optimizer.zero_grad(set_to_none=True)
        (coarse_loss + fine_loss).backward()  # eq. 6
        self.optimizer.step()
        self.context.count(len(target))
        return {"loss": (coarse_loss + fine_loss).detach(), "psnr": -10 * torch.log10(fine_loss.detach())}

    def predictor(self) -> NeRFPredictor:
        return NeRFPredictor(copy.deepcopy(self.field).eval().requires_grad_(False), self.context.autocast)
