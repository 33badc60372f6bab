"""3D Gaussians seen by a pinhole camera: EWA splatting (Zwicker et al. 2001) as in Kerbl et al. 2023, section 4.

All arrays have the Gaussian's index last. Camera axes are OpenCV's (x right, y down, z forward), pixel centres at +0.5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adlbench.methods.nn.precision import full_precision

DILATION = 0.3  # pixel^2, added to the projected covariance so that no Gaussian falls between the pixels
FRUSTUM_MARGIN = 0.3  # of half the field of view: further out the local linearisation stays what it is at that border


class Projection(NamedTuple):
    """N Gaussians on the image plane."""

    means2d: Tensor  # [2, N] pixels
    conics: Tensor  # [3, N] entries a, b, c of the inverse covariance [[a, b], [b, c]], 1/pixel^2
    depths: Tensor  # [N] z in the camera's frame, world units
    variances: Tensor  # [2, N] of x and y, pixel^2; 0 for Gaussians before the near plane. No gradient


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """[4, N] (w, x, y, z), of any length but 0 -> [3, 3, N]."""
    w, x, y, z = quaternions * quaternions.square().sum(0).rsqrt()
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ]
    ).view(3, 3, -1)  # fmt: skip


def covariances(quaternions: Tensor, scales: Tensor) -> Tensor:
    """R S S^T R^T (equation 6): quaternions [4, N] and standard deviations along the axes [3, N] -> [3, 3, N]."""
    factor = rotation_matrices(quaternions) * scales
    return (factor.unsqueeze(1) * factor.unsqueeze(0)).sum(2)


def project(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
) -> Projection:
    """Project Gaussians with ``means`` [3, N], ``quaternions`` [4, N] and ``scales`` [3, N] (standard deviations).

    Args:
        world_to_camera: [4, 4]. No gradient.
        intrinsics: [3, 3] pixels. No gradient.
        near: Gaussians nearer than this along z are not drawn, world units.

    Computed in the type of the means, float32 at least, whatever autocast says: with bfloat16's 8 bits a mean would be off by
    pixels. float32 means are right to 1e-4 pixels, conics to 1e-4 of themselves. What is not finite is not drawn.
    """
    kind = torch.promote_types(means.dtype, torch.float32)
    values = (x.to(kind) for x in (means, quaternions, scales, world_to_camera, intrinsics))
    return Projection(*_Project.apply(*values, width, height, near))


class _Project(torch.autograd.Function):
    """Equation 5 with J W R S as the factor of the covariance: cov2d = (J W R S) (J W R S)^T, 2 x 3 numbers a Gaussian."""

    @staticmethod
    @full_precision
    def forward(
        ctx: Any,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        world_to_camera: Tensor,
        intrinsics: Tensor,
        width: int,
        height: int,
        near: float,
    ) -> tuple[Tensor, ...]:
        rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3:]
        focal, centre = intrinsics[:2, :2], intrinsics[:2, 2:]
        position = torch.addmm(translation, rotation, means)  # [3, N] camera frame
        # Before the near plane nothing is drawn, and nothing may become infinite either.
        inverse_depth = position[2].clamp(min=near).reciprocal_()
        slope = position[:2] * inverse_depth
        means2d = torch.addmm(centre, focal, slope)

        size = torch.tensor([[width], [height]], dtype=means.dtype, device=means.device)
        scale = intrinsics.diagonal()[:2, None]
        margin = FRUSTUM_MARGIN * 0.5 * size / scale
        inner = torch.maximum(torch.minimum(slope, (size - centre) / scale + margin), -centre / scale - margin)
        view = (focal @ rotation[:2]).unsqueeze(2) - (focal @ inner).unsqueeze(1) * rotation[2].view(1, 3, 1)
        view *= inverse_depth  # J W: [2, 3, N]
        axes = rotation_matrices(quaternions)
        factor = _multiply(view, axes * scales)  # J W R S: [2, 3, N]

        xx, yy = factor.square().sum(1).add_(DILATION)
        xy = (factor[0] * factor[1]).sum(0)
        conics = torch.stack([yy, -xy, xx]).div_(torch.addcmul(xx * yy, xy, xy, value=-1))
        # A covariance so thin and long that its determinant is lost to rounding cannot be drawn.
        drawn = (position[2] > near) & torch.isfinite(conics).all(0) & (conics[0] > 0)
        variances = torch.stack([xx, yy]).masked_fill_(~drawn, 0)

        ctx.save_for_backward(
            quaternions, scales, rotation, focal, position, inverse_depth, slope, inner, view, axes, factor, conics
        )
        ctx.near = near
        ctx.mark_non_differentiable(variances)
        return means2d, conics, position[2], variances

    @staticmethod
    @once_differentiable
    @full_precision
    def backward(
        ctx: Any, grad_means2d: Tensor, grad_conics: Tensor, grad_depths: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        quaternions, scales, rotation, focal, position, inverse_depth, slope, inner, view, axes, factor, conics = (
            ctx.saved_tensors
        )
        grad_factor = _grad_factor(grad_conics, conics, factor)
        grad_view = _multiply(grad_factor, (axes * scales).transpose(0, 1))
        grad_axes = _multiply(view.transpose(0, 1), grad_factor)  # of R S
        grad_scales = (grad_axes * axes).sum(0)
        grad_quaternions = _grad_quaternions(grad_axes.mul_(scales), quaternions)

        # view = (K W - K slope w_3^T) / z
        grad_inverse = (grad_view * view).sum((0, 1)) / inverse_depth
        grad_slope = focal.t() @ (grad_view * -rotation[2].view(1, 3, 1)).sum(1).mul_(inverse_depth)
        grad_slope = torch.where(slope == inner, grad_slope, 0.0)
        grad_slope += focal.t() @ grad_means2d
        grad_inverse += (grad_slope * position[:2]).sum(0)
        grad_z = torch.where(position[2] > ctx.near, grad_inverse * inverse_depth.square(), 0.0)
        grad_position = torch.cat([grad_slope * inverse_depth, (grad_depths - grad_z).unsqueeze(0)])
        return rotation.t() @ grad_position, grad_quaternions, grad_scales, None, None, None, None, None


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """N matrix products: [I, J, N] x [J, K, N] -> [I, K, N]."""
    out = left[:, 0].unsqueeze(1) * right[0]
    for j in range(1, left.shape[1]):
        out.addcmul_(left[:, j].unsqueeze(1), right[j])
    return out


def _grad_factor(grad_conics: Tensor, conics: Tensor, factor: Tensor) -> Tensor:
    """dL/dF [2, 3, N] from dL/dQ, Q = (F F^T + dilation)^-1: -2 Q G Q F with G the symmetric gradient."""
    a, b, c = conics
    ga, gc = grad_conics[0], grad_conics[2]
    half = grad_conics[1] * 0.5  # b stands for both off-diagonal entries
    xx, xy = ga * a + half * b, ga * b + half * c
    yx, yy = half * a + gc * b, half * b + gc * c
    cross = (a * xy + b * yy).mul_(-2).unsqueeze(0)
    own = torch.stack([a * xx + b * yx, b * xy + c * yy]).mul_(-2)
    return (own.unsqueeze(1) * factor).addcmul_(cross.unsqueeze(0), factor.flip(0))


def _grad_quaternions(grad: Tensor, quaternions: Tensor) -> Tensor:
    """dL/dq [4, N] from dL/dR [3, 3, N]."""
    inverse_norm = quaternions.square().sum(0).rsqrt_()
    unit = quaternions * inverse_norm
    w, x, y, z = unit
    minus_x, minus_y, minus_z = grad[2, 1] - grad[1, 2], grad[0, 2] - grad[2, 0], grad[1, 0] - grad[0, 1]
    plus_x, plus_y, plus_z = grad[2, 1] + grad[1, 2], grad[0, 2] + grad[2, 0], grad[1, 0] + grad[0, 1]
    xx, yy, zz = grad[0, 0], grad[1, 1], grad[2, 2]
    out = torch.stack(
        [
            x * minus_x + y * minus_y + z * minus_z,
            w * minus_x + y * plus_z + z * plus_y - 2 * x * (yy + zz),
            w * minus_y + x * plus_z + z * plus_x - 2 * y * (xx + zz),
            w * minus_z + x * plus_y + y * plus_x - 2 * z * (xx + yy),
        ]
    ).mul_(2)
    return (out - unit * (unit * out).sum(0)).mul_(inverse_norm)  # a quaternion's length does not count
