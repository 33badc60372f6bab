"""Projection, covariance and spherical harmonics against gsplat's functions in plain torch."""

from __future__ import annotations

import pytest
import torch
from gsplat_on_cpu import gsplat_on_cpu

from adlbench.methods.nn import gaussian_rasterizer, spherical_harmonics
from adlbench.methods.nn.gaussian_cloud import GaussianCloud
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


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_rasterisation_and_its_gradients(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """gsplat's whole chain, with its bound of 0.999 on alpha: colours of degree 3, opacity, depth, a background; gradients
    of all parameters and of the screen-space means."""
    pytest.importorskip("nerfacc")
    pytest.importorskip(backend)
    count, width, height, degree = 120, 33, 26, 3
    pose = torch.eye(4)
    pose[2, 3] = 4.0
    intrinsics = torch.tensor([[40.0, 0, 16], [0, 42, 13], [0, 0, 1]])
    cloud = GaussianCloud(count, degree)
    with torch.no_grad():
        for parameter in cloud.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape))
        cloud.log_scales.sub_(2.0)
    background = torch.tensor([0.2, 0.5, 0.9])
    monkeypatch.setattr(gaussian_rasterizer, "backends", lambda like: (backend,))
    view = cloud.render(
        pose, intrinsics, width, height, background, degree=degree, near=0.01, max_alpha=0.999, depth=True
    )
    values = {name: p.detach().clone().requires_grad_() for name, p in cloud.named_parameters()}
    harmonics = torch.cat([values["sh_constant"][None], values["sh_rest"]]).permute(2, 0, 1)
    with gsplat_on_cpu() as theirs:
        image, alpha, meta = theirs(
            values["means"].t(),
            values["quaternions"].t(),
            values["log_scales"].exp().t(),
            values["opacity_logits"].sigmoid(),
            harmonics,
            pose[None],
            intrinsics[None],
            width,
            height,
            sh_degree=degree,
            backgrounds=background[None],
            render_mode="RGB+D",
        )
    torch.testing.assert_close(view.rgb, image[0, ..., :3].permute(2, 0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(view.opacity, alpha[0, ..., 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(view.depth, image[0, ..., 3], atol=5e-5, rtol=0)
    assert float(alpha.max()) > 0.9

    pull = torch.randn(4, height, width)
    mine = (torch.cat([view.rgb, view.opacity[None]]) * pull).sum()
    other = (torch.cat([image[0, ..., :3].permute(2, 0, 1), alpha[..., 0]]) * pull).sum()
    got = torch.autograd.grad(mine, [view.means2d, *cloud.parameters()])
    wanted = torch.autograd.grad(other, [meta["means2d"], *values.values()])
    for a, b in zip(got, [wanted[0][0].t(), *wanted[1:]]):
        torch.testing.assert_close(a, b, atol=2e-5 * float(b.abs().max()), rtol=0)
