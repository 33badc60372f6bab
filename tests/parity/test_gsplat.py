"""Projection, covariance and spherical harmonics against gsplat's functions in plain torch."""

from __future__ import annotations

import pytest
import torch

from adlbench.methods.nn import spherical_harmonics
from adlbench.methods.nn.gaussian_projection import covariances, project

reference = pytest.importorskip("gsplat.cuda._torch_impl")

WIDTH, HEIGHT, NEAR, COUNT = 100, 90, 0.5, 200


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_covariances() -> None:
    quaternions, scales = random(4, COUNT), random(3, COUNT).exp()
    theirs, _ = reference._quat_scale_to_covar_preci(quaternions.t(), scales.t(), True, False)
    torch.testing.assert_close(covariances(quaternions, scales).permute(2, 0, 1), theirs)


def test_projection_and_its_gradients() -> None:
    """With Gaussians beyond 1.3 times the field of view, a centre off the middle and unequal focal lengths."""
    rotation = torch.linalg.qr(random(3, 3))[0]
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = rotation * torch.linalg.det(rotation), torch.tensor([0.1, -0.2, 4.0])
    intrinsics = torch.tensor([[139.0, 0, 47], [0, 120, 50], [0, 0, 1]], dtype=torch.float64)
    values = (1.5 * random(3, COUNT), random(4, COUNT), 0.1 + 0.2 * random(3, COUNT).abs())
    ours, theirs = ([x.clone().requires_grad_() for x in values] for _ in range(2))

    seen = project(*ours, pose, intrinsics, WIDTH, HEIGHT, NEAR)
    covariance, _ = reference._quat_scale_to_covar_preci(theirs[1].t(), theirs[2].t(), True, False)
    _, means2d, depths, conics, _ = reference._fully_fused_projection(
        theirs[0].t(), covariance, pose[None], intrinsics[None], WIDTH, HEIGHT, near_plane=NEAR
    )
    drawn = seen.variances[0] > 0
    assert torch.equal(drawn, depths[0] > NEAR)
    assert 100 < int(drawn.sum()) < COUNT
    pairs = [(seen.means2d, means2d[0].t()), (seen.conics, conics[0].t()), (seen.depths, depths[0])]
    pulls = [random(*mine.shape) * drawn for mine, _ in pairs]
    for mine, other in pairs:
        torch.testing.assert_close(mine[..., drawn], other[..., drawn])
    mine_loss = sum((x * pull)[..., drawn].sum() for (x, _), pull in zip(pairs, pulls))
    other_loss = sum((x * pull)[..., drawn].sum() for (_, x), pull in zip(pairs, pulls))
    for a, b in zip(torch.autograd.grad(mine_loss, ours), torch.autograd.grad(other_loss, theirs)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics(degree: int) -> None:
    directions = torch.nn.functional.normalize(random(COUNT, 3), dim=1)
    coefficients = random(COUNT, 16, 3)
    theirs = reference._spherical_harmonics(degree, directions, coefficients)
    constant, rest = coefficients[:, 0].t(), coefficients[:, 1:].permute(1, 2, 0)
    torch.testing.assert_close(spherical_harmonics.evaluate(constant, rest, directions.t(), degree).t(), theirs)
