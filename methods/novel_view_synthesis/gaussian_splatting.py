"""3D Gaussian Splatting for Real-Time Radiance Field Rendering (Kerbl et al., SIGGRAPH 2023).

A scene is a set of anisotropic 3D Gaussians with opacities and view-dependent colours. One step renders one training view
and follows the gradient of 0.8 L1 + 0.2 (1 - SSIM). Now and then Gaussians are cloned, split and pruned (section 5.2).
Sections and equations below are the paper's; what it leaves open follows the authors' released code.

All of the paper's intervals are counted in its own iterations, of which there are ``iterations`` in a run: at any moment
the iteration is the share of the budget that is used, times ``iterations``. At 30,000 steps these are the steps; in a
shorter run the whole schedule is compressed in proportion.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adlbench.benchmark.api import Cameras, Context, DataError, DataSchema, Rendering, TrainingData
from adlbench.methods.base.per_scene import PerSceneMethod, PosedImages
from adlbench.methods.nn.gaussian_cloud import GaussianCloud, lower_opacities, rearrange
from adlbench.methods.nn.ssim_loss import ssim


@dataclass(frozen=True)
class GaussianSplattingPredictor:
    cloud: GaussianCloud
    background: Tensor  # [3]
    degree: int
    near: float
    max_alpha: float

    def render(self, cameras: Cameras) -> Rendering:
        rgb, depth, opacity = [], [], []
        for pose, intrinsics in zip(cameras.world_to_camera, cameras.intrinsics):
            view = self.cloud.render(
                pose,
                intrinsics,
                cameras.width,
                cameras.height,
                self.background,
                degree=self.degree,
                near=self.near,
                max_alpha=self.max_alpha,
                depth=True,
            )
            rgb.append(view.rgb.permute(1, 2, 0).clamp(0, 1))
            depth.append(view.depth / view.opacity.clamp(min=1e-8))  # 0 where nothing is
            opacity.append(view.opacity)
        return Rendering(torch.stack(rgb), torch.stack(depth), torch.stack(opacity))


@dataclass(eq=False, kw_only=True)
class GaussianSplatting(PerSceneMethod):
    """The defaults are those of the paper and the released code."""

    shares_batches: ClassVar[bool] = True
    synchronises: ClassVar[str] = (
        "the number of Gaussians a tile holds, and after density control the number of all, decide the shapes of tensors"
    )

    iterations: int = 30_000  # the paper's, in which all intervals below are counted
    initial_points: int = 100_000  # random, where the data has no points
    sh_degree: int = 3
    sh_every: int = 1000  # iterations until one more band of the harmonics joins in
    means_lr: float = 1.6e-4  # in units of the scene's extent
    final_means_lr: float = 1.6e-6  # at the end, after an exponential decay
    log_scales_lr: float = 5e-3
    quaternions_lr: float = 1e-3
    opacities_lr: float = 5e-2
    sh_lr: float = 2.5e-3  # of the constant band; a twentieth of it for the others
    ssim_weight: float = 0.2
    densify_from: int = 500
    densify_until: int = 15_000
    densify_every: int = 100
    gradient_threshold: float = 2e-4  # of the mean norm of dL/d(mean in normalised device coordinates)
    split_above: float = 0.01  # of the extent: larger Gaussians are split, others are cloned
    split_factor: float = 1.6  # by which a split Gaussian's parts are smaller
    prune_opacity: float = 0.005
    prune_above: float = 0.1  # of the extent, once opacities have been reset
    reset_every: int = 3000
    initial_opacity: float = 0.1
    reset_opacity: float = 0.01
    max_gaussians: int | None = None  # densification then takes the steepest first; the paper has no limit
    max_alpha: float = 0.99
    near: float = 0.2  # world units
    views_per_step: int = 1  # with devices=N a multiple of N, of which each renders its share; the paper's is 1

    # ------------------------------------------------------------------------------------------------------- contract
    def skip(self, schema: DataSchema) -> str | None:
        missing = {"image", "intrinsics", "world_to_camera"} - set(schema.fields)
        return f"the views have no {', '.join(sorted(missing))}" if missing else None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context, self.schema = context, data.schema
        self.background = torch.tensor(data.schema.background, device=context.device)
        self.extent = data.schema.scene_radius or 1.0
        self.iteration = 0  # at which the last step was
        self.order = torch.empty(0, dtype=torch.int64)  # views still to be seen in this round
        if data.present:
            self.views = self.posed_images(data, context)
            self.extent = scene_extent(self.views) or self.extent
            points, colours = self._initial_points(data)
            cloud = GaussianCloud.from_points(points, colours, self.initial_opacity, self.sh_degree)
        else:
            cloud = GaussianCloud(1, self.sh_degree).to(context.device)
        self._adopt(cloud)

    def step(self) -> Mapping[str, Tensor]:
        self._advance(int(self.context.progress * self.iterations + 1e-6))
        views = self.context.share(torch.tensor([self._next_view() for _ in range(self.views_per_step)])).tolist()
        self.optimizer.zero_grad(set_to_none=True)
        losses, errors, seen = [], [], torch.zeros(2, len(self.cloud), device=self.context.device)
        for index in views:
            target = self.views.images[index].permute(2, 0, 1).float() / 255
            height, width = target.shape[1:]
            view = self.cloud.render(
                self.views.world_to_camera[index],
                self.views.intrinsics[index],
                width,
                height,
                self.background,
                degree=self._degree,
                near=self.near,
                max_alpha=self.max_alpha,
            )
            view.means2d.retain_grad()
            l1 = (view.rgb - target).abs().mean()
            loss = (1 - self.ssim_weight) * l1 + self.ssim_weight * (1 - ssim(view.rgb, target))  # equation 7
            (loss / len(views)).backward()
            if view.means2d.grad is not None:
                # Normalised device coordinates span [-1, 1]: half the image is one unit.
                half = torch.tensor([[width / 2], [height / 2]], device=target.device) * len(views)
                seen[0] += torch.hypot(*(view.means2d.grad * half)) * view.visible  # faster than a norm
                seen[1] += view.visible
            self.context.count(height * width)
            losses.append(loss.detach())
            errors.append((view.rgb.detach().clamp(0, 1) - target).square().mean())
        if self.iteration < self.densify_until:
            self.gradient_statistics += self.context.total(seen)
        self.optimizer.step()
        return {
            "loss": torch.stack(losses).mean(),
            "psnr": -10 * torch.log10(torch.stack(errors)).mean(),
            "num_gaussians": torch.tensor(len(self.cloud)),
        }

    def predictor(self) -> GaussianSplattingPredictor:
        cloud = copy.deepcopy(self.cloud).eval().requires_grad_(False)
        return GaussianSplattingPredictor(cloud, self.background, self._degree, self.near, self.max_alpha)

    def state_dict(self) -> dict[str, Any]:
        return {
            "cloud": self.cloud.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "gradient_statistics": self.gradient_statistics,
            "order": self.order,
            "iteration": self.iteration,
            "extent": self.extent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The number of Gaussians is that of the state."""
        self.iteration, self.extent, self.order = state["iteration"], state["extent"], state["order"]
        cloud = GaussianCloud(state["cloud"]["means"].shape[1], self.sh_degree).to(self.context.device)
        cloud.load_state_dict(state["cloud"])
        self._adopt(cloud)
        self.optimizer.load_state_dict(state["optimizer"])
        self.gradient_statistics = state["gradient_statistics"].to(self.context.device)

    # ------------------------------------------------------------------------------------------------------- schedule
    @property
    def _degree(self) -> int:
        return min(self.sh_degree, self.iteration // self.sh_every)

    def _advance(self, iteration: int) -> None:
        """Do what falls due between the last step's iteration and this one's."""
        before, self.iteration = self.iteration, iteration

        def due(period: int) -> bool:
            return iteration // period > before // period

        if self.densify_from < iteration < self.densify_until and due(self.densify_every):
            self._control_density()
        if iteration < self.densify_until and due(self.reset_every):
            lower_opacities(self.cloud, self.optimizer, self.reset_opacity)
        share = min(iteration / self.iterations, 1.0)
        rate = math.exp((1 - share) * math.log(self.means_lr) + share * math.log(self.final_means_lr))
        self.optimizer.param_groups[0]["lr"] = rate * self.extent

    def _next_view(self) -> int:
        """All views in random order, then all of them again."""
        if len(self.order) == 0:
            generator = self.context.generator("views")
            self.order = torch.randperm(len(self.views.images), generator=generator, device=generator.device).cpu()
        index, self.order = int(self.order[0]), self.order[1:]
        return index

    # ------------------------------------------------------------------------------------------------------ Gaussians
    def _adopt(self, cloud: GaussianCloud) -> None:
        self.cloud = cloud
        rates = {
            "means": self.means_lr * self.extent,
            "log_scales": self.log_scales_lr,
            "quaternions": self.quaternions_lr,
            "opacity_logits": self.opacities_lr,
            "sh_constant": self.sh_lr,
            "sh_rest": self.sh_lr / 20,
        }
        groups = [{"params": [getattr(cloud, name)], "lr": rate, "name": name} for name, rate in rates.items()]
        # eps: gradients of a picture's mean are so small that the default would swallow them
        self.optimizer = torch.optim.Adam(groups, eps=1e-15, fused=True)
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        # [2, N]: of each Gaussian, the norms of dL/d(mean) summed over the views that saw it, and the number of those
        self.gradient_statistics = torch.zeros(2, len(self.cloud), device=self.cloud.means.device)

    def _initial_points(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Points [P, 3] and their colours [P, 3]: those that came with the views, else random grey ones in the scene's sphere."""
        device = self.context.device
        if "points" in data.schema.fields:
            return coloured_points(data.train.all()["points"].to(device), self.views)
        generator = self.context.generator("points")
        direction = torch.randn(self.initial_points, 3, generator=generator, device=device)
        radius = torch.rand(self.initial_points, 1, generator=generator, device=device) ** (1 / 3)
        points = direction / direction.norm(dim=1, keepdim=True) * radius
        centre = torch.tensor(data.schema.scene_center, device=device)
        return points * (data.schema.scene_radius or self.extent) + centre, torch.full_like(points, 0.5)

    @torch.no_grad()
    def _control_density(self) -> None:
        """Clone what is small and split what is large where the views pull; remove what is faint or huge (section 5.2)."""
        cloud, extent = self.cloud, self.extent
        total, count = self.gradient_statistics
        gradient = total / count.clamp(min=1)
        grows = gradient >= self.gradient_threshold
        if self.max_gaussians is not None:
            room = max(0, self.max_gaussians - len(cloud))
            if int(grows.sum()) > room:
                grows = torch.zeros_like(grows).index_fill_(0, gradient.topk(min(room, len(cloud))).indices, True)
        large = cloud.scales.amax(0) > self.split_above * extent
        cloned = (grows & ~large).nonzero().squeeze(1)
        split = (grows & large).nonzero().squeeze(1)
        kept = (~(grows & large)).nonzero().squeeze(1)

        parts = split.repeat(2)
        positions = cloud.sample_within(parts, self.context.generator("split"))
        index = torch.cat([kept, cloned, parts])
        fresh = torch.arange(len(index), device=index.device) >= len(kept)
        rearrange(cloud, self.optimizer, index, fresh)
        first = len(index) - len(parts)
        cloud.means[:, first:] = positions
        cloud.log_scales[:, first:] -= math.log(self.split_factor)

        faint = ~(cloud.opacities >= self.prune_opacity)  # and what is NaN
        huge = cloud.scales.amax(0) > self.prune_above * extent
        gone = faint | huge if self.iteration > self.reset_every else faint
        left = (~gone).nonzero().squeeze(1)
        if len(left) == 0:
            left = cloud.opacities.argmax().unsqueeze(0)  # a scene of nothing could never grow again
        rearrange(cloud, self.optimizer, left, torch.zeros_like(left, dtype=torch.bool))
        self._forget_gradients()


def scene_extent(views: PosedImages) -> float:
    """The unit of lengths: 1.1 times the largest distance of a camera from the cameras' mean position; 0 for one camera."""
    positions = views.camera_to_world[:, :3, 3]
    return 1.1 * float((positions - positions.mean(0)).norm(dim=1).max())


def coloured_points(points: Tensor, views: PosedImages) -> tuple[Tensor, Tensor]:
    """All different points [P, 3] of ``points`` [V, M, 3], which view v sees (rows of NaN are filling), and their mean colours
    [P, 3] in the views that see them."""
    found, rgb = [], []
    height, width = views.images.shape[1:3]
    for image, intrinsics, pose, rows in zip(views.images, views.intrinsics, views.world_to_camera, points):
        own = rows[torch.isfinite(rows).all(1)].float()
        pixel = (own @ pose[:3, :3].t() + pose[:3, 3]) @ intrinsics.t()
        column, row = (pixel[:, :2] / pixel[:, 2:]).long().t()
        found.append(own)
        rgb.append(image[row.clamp(0, height - 1), column.clamp(0, width - 1)].float() / 255)
    if not sum(map(len, found)):
        raise DataError("the views name a field points, but none of their points is finite; leave the field out")
    unique, inverse = torch.unique(torch.cat(found), dim=0, return_inverse=True)
    total = torch.zeros_like(unique).index_add_(0, inverse, torch.cat(rgb))
    return unique, total / torch.bincount(inverse).unsqueeze(1)
