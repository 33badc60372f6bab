"""A set of 3D Gaussians as trainable parameters, their rendering, and the surgery on Adam's state when their number changes.

All arrays have the Gaussian's index last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import spherical_harmonics
from adlbench.methods.nn.gaussian_projection import project, rotation_matrices
from adlbench.methods.nn.gaussian_rasterizer import rasterize

NEIGHBOURS = 3


class View(NamedTuple):
    """What one camera sees."""

    rgb: Tensor  # [3, H, W], composited on the background, not clamped
    opacity: Tensor  # [H, W]
    depth: Tensor  # [H, W] z-depth times opacity; empty [0] where it was not asked for
    means2d: Tensor  # [2, N] pixels, in the graph: its gradient drives densification
    visible: Tensor  # [N] bool


class GaussianCloud(nn.Module):
    def __init__(self, count: int, degree: int):
        """``count`` Gaussians of colour 0.5 without a place yet; spherical harmonics to ``degree``."""
        super().__init__()
        self.means = nn.Parameter(torch.zeros(3, count))  # world units
        self.log_scales = nn.Parameter(torch.zeros(3, count))
        self.quaternions = nn.Parameter(torch.tensor([[1.0], [0.0], [0.0], [0.0]]).repeat(1, count))  # (w, x, y, z)
        self.opacity_logits = nn.Parameter(torch.zeros(count))
        self.sh_constant = nn.Parameter(torch.zeros(3, count))
        self.sh_rest = nn.Parameter(torch.zeros(spherical_harmonics.num_bases(degree) - 1, 3, count))

    @staticmethod
    def from_points(points: Tensor, colours: Tensor, opacity: float, degree: int) -> GaussianCloud:
        """Isotropic Gaussians at ``points`` [P, 3] with ``colours`` [P, 3] in [0, 1], as large as the distance to the neighbours."""
        cloud = GaussianCloud(len(points), degree)
        with torch.no_grad():
            cloud.means.copy_(points.t())
            cloud.log_scales.copy_(neighbour_distances(points).log().expand(3, -1))
            cloud.opacity_logits.fill_(_logit(opacity))
            cloud.sh_constant.copy_((colours.t() - 0.5) / spherical_harmonics.C0)
        return cloud.to(points.device)

    def __len__(self) -> int:
        return self.means.shape[1]

    @property
    def opacities(self) -> Tensor:
        return self.opacity_logits.sigmoid()

    @property
    def scales(self) -> Tensor:
        """[3, N] standard deviations along the Gaussians' own axes, world units."""
        return self.log_scales.exp()

    def render(
        self,
        world_to_camera: Tensor,
        intrinsics: Tensor,
        width: int,
        height: int,
        background: Tensor,
        *,
        degree: int,
        near: float,
        max_alpha: float,
        depth: bool = False,
        surface_tolerance: float | None = None,
    ) -> View:
        """Render one camera; ``degree`` bands of the harmonics are in use, ``background`` is [3].

        With ``surface_tolerance`` (world units) Gaussians are blended as one surface, see ``rasterize``.
        """
        opacities = self.opacities
        seen = project(self.means, self.quaternions, self.scales, world_to_camera, intrinsics, width, height, near)
        position = -world_to_camera[:3, :3].t() @ world_to_camera[:3, 3:]
        direction = self.means - position
        direction = (
            direction * direction.square().sum(0).clamp(min=1e-30).rsqrt()
        )  # it may be at the camera: no gradient
        colours = spherical_harmonics.evaluate(self.sh_constant, self.sh_rest, direction, degree).add(0.5).clamp(min=0)
        features = torch.cat([colours, seen.depths.unsqueeze(0)]) if depth else colours
        raster = rasterize(
            seen.means2d,
            seen.conics,
            seen.variances,
            opacities,
            features,
            seen.depths,
            width,
            height,
            max_alpha=max_alpha,
            surface_tolerance=surface_tolerance,
        )
        rgb = raster.features[:3] + (1 - raster.opacity) * background.view(3, 1, 1)
        return View(rgb, raster.opacity, raster.features[3:].flatten(0, 1), seen.means2d, raster.visible)

    def sample_within(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """One random position [3, M] inside each of the Gaussians ``index`` [M]."""
        noise = torch.randn(3, len(index), generator=generator, device=index.device) * self.scales[:, index]
        return self.means[:, index] + (rotation_matrices(self.quaternions[:, index]) * noise).sum(1)


def rearrange(cloud: GaussianCloud, optimizer: torch.optim.Adam, index: Tensor, fresh: Tensor) -> None:
    """Make the cloud consist of its Gaussians ``index`` [M] (perhaps some left out, some twice), in that order.

    Adam's moments move along with them; those of ``fresh`` ones [M] start at zero. The parameters stay the same objects,
    for whoever else knows them: the exchange of gradients between devices does.
    """
    for group in optimizer.param_groups:
        (parameter,) = group["params"]
        parameter.grad = None
        parameter.data = parameter.detach().index_select(-1, index)
        state = optimizer.state.get(parameter, {})
        for name in state.keys() & {"exp_avg", "exp_avg_sq"}:
            state[name] = state[name].index_select(-1, index).masked_fill_(fresh, 0)


def lower_opacities(cloud: GaussianCloud, optimizer: torch.optim.Adam, opacity: float) -> None:
    """Opacities above ``opacity`` become that, and Adam forgets what it knew of opacities."""
    with torch.no_grad():
        cloud.opacity_logits.clamp_(max=_logit(opacity))
    for name, value in optimizer.state[cloud.opacity_logits].items():
        if name != "step":
            value.zero_()


def neighbour_distances(points: Tensor) -> Tensor:
    """[P, 3] -> [P]: root mean square distance to the three nearest other points, at least 1e-4 of the whole set's extent.

    Raises DataError where there is no point, or one that is not finite.
    """
    from scipy.spatial import KDTree

    if not len(points) or not bool(points.isfinite().all()):
        raise DataError(f"distances between {len(points)} points; wanted: at least one, and all of them finite")
    coordinates = points.detach().cpu().double().numpy()
    spread = float((coordinates.max(0) - coordinates.min(0)).max()) or 1.0
    known = min(NEIGHBOURS, len(coordinates) - 1)
    if known == 0:
        return torch.full((len(points),), spread, device=points.device)
    distances, _ = KDTree(coordinates).query(coordinates, k=known + 1)
    mean = (distances[:, 1:] ** 2).mean(1) ** 0.5
    return torch.from_numpy(mean.clip(1e-4 * spread)).to(points)


def _logit(probability: float) -> float:
    return float(torch.tensor(probability, dtype=torch.float64).logit())
