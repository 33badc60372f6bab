"""Projection of 3D Gaussians against derivatives of the pinhole camera and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adlbench.methods.nn.gaussian_projection import DILATION, covariances, project, rotation_matrices

WIDTH, HEIGHT, NEAR = 60, 40, 0.5
INTRINSICS = torch.tensor([[50.0, 0.4, 28.0], [0.0, 45.0, 21.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def pose() -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation_matrices(torch.tensor([[0.9], [0.1], [-0.3], [0.2]], dtype=torch.float64))[:, :, 0]
    matrix[:3, 3] = torch.tensor([0.1, -0.2, 4.0])
    return matrix


def gaussians(count: int = 20, spread: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = spread * (2 * torch.rand(3, count, dtype=torch.float64, generator=generator) - 1)
    quaternions = torch.randn(4, count, dtype=torch.float64, generator=generator)
    scales = 0.05 + 0.3 * torch.rand(3, count, dtype=torch.float64, generator=generator)
    return means, quaternions, scales


def pixel(point: Tensor) -> Tensor:
    """The textbook camera: world [3] -> pixels [2]."""
    inside = INTRINSICS @ (pose()[:3, :3] @ point + pose()[:3, 3])
    return inside[:2] / inside[2]


def inverse(conics: Tensor) -> Tensor:
    """[3, N] -> covariances [N, 2, 2]."""
    a, b, c = conics
    return torch.linalg.inv(torch.stack([torch.stack([a, b], -1), torch.stack([b, c], -1)], -2))


def test_covariance_has_the_squared_scales_along_the_rotated_axes() -> None:
    _, quaternions, scales = gaussians()
    rotation, covariance = rotation_matrices(quaternions), covariances(quaternions, scales)
    for i in range(quaternions.shape[1]):
        r = rotation[:, :, i]
        torch.testing.assert_close(r @ r.t(), torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(covariance[:, :, i], r @ scales[:, i].square().diag() @ r.t())
    quarter = torch.tensor([[0.5**0.5], [0.0], [0.0], [0.5**0.5]])  # w, x, y, z: x turns to y
    torch.testing.assert_close(
        rotation_matrices(quarter)[:, :, 0] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    )


def test_mean_and_covariance_are_those_of_the_camera_linearised_at_the_mean() -> None:
    means, quaternions, scales = gaussians()
    seen = project(means, quaternions, scales, pose(), INTRINSICS, WIDTH, HEIGHT, NEAR)
    covariance = covariances(quaternions, scales)
    for i, found in enumerate(inverse(seen.conics)):
        jacobian = torch.autograd.functional.jacobian(pixel, means[:, i])
        expected = jacobian @ covariance[:, :, i] @ jacobian.t() + DILATION * torch.eye(2, dtype=torch.float64)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(seen.variances[:, i], expected.diagonal())
        torch.testing.assert_close(seen.means2d[:, i], pixel(means[:, i]))
        torch.testing.assert_close(seen.depths[i], (pose()[:3, :3] @ means[:, i] + pose()[:3, 3])[2])


def test_a_point_is_dilated_by_three_tenths_of_a_square_pixel() -> None:
    means, quaternions, scales = gaussians(1)
    seen = project(means, quaternions, scales * 1e-6, pose(), INTRINSICS, WIDTH, HEIGHT, NEAR)
    torch.testing.assert_close(inverse(seen.conics)[0], 0.3 * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_outside_of_the_image_the_linearisation_is_that_at_1_3_times_the_field_of_view(side: float) -> None:
    """Without the clamp a Gaussian far to the side would smear over the whole image. The mean is not clamped."""
    intrinsics = torch.tensor([[50.0, 0, 30.0], [0, 50.0, 20.0], [0, 0, 1.0]], dtype=torch.float64)
    still = torch.eye(4, dtype=torch.float64)
    limit = 1.3 * 0.5 * WIDTH / 50.0
    _, quaternions, scales = gaussians(1)
    means = torch.tensor([[side * limit * 2, side * limit * 2.5], [0.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    pair = quaternions.repeat(1, 2), scales.repeat(1, 2)
    seen = project(means, *pair, still, intrinsics, WIDTH, HEIGHT, NEAR)
    torch.testing.assert_close(seen.conics[:, 0], seen.conics[:, 1])  # at the limit and beyond it
    torch.testing.assert_close(seen.means2d[0], 50.0 * means[0] / 2 + 30.0)


def test_what_is_nearer_than_the_near_plane_is_not_drawn_and_stays_finite() -> None:
    means, quaternions, scales = gaussians(3)
    camera = pose()
    means[:, 0] = camera[:3, :3].t() @ (torch.tensor([0.1, 0.1, 0.4], dtype=torch.float64) - camera[:3, 3])
    means[:, 1] = camera[:3, :3].t() @ (torch.tensor([0.1, 0.1, -3.0], dtype=torch.float64) - camera[:3, 3])
    parameters = [x.requires_grad_() for x in (means, quaternions, scales)]
    seen = project(*parameters, camera, INTRINSICS, WIDTH, HEIGHT, NEAR)
    assert (seen.variances[:, :2] == 0).all()
    assert (seen.variances[:, 2] > 0).all()
    (seen.means2d[:, 2].sum() + seen.conics[:, 2].sum()).backward()
    for parameter in parameters:
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("count", [0, 1])
def test_no_gaussian_and_one(count: int) -> None:
    seen = project(*gaussians(count), pose(), INTRINSICS, WIDTH, HEIGHT, NEAR)
    assert [x.shape[-1] for x in seen] == [count] * 4


def test_float32_and_what_is_given_in_bfloat16() -> None:
    """Against float64: positions to 1e-4 pixels. Means of 8 bits are taken as they are; nothing else is rounded to that."""
    camera = (pose(), INTRINSICS, WIDTH, HEIGHT, NEAR)
    exact = project(*gaussians(200), *camera)
    single = [x.float() for x in gaussians(200)]
    found = project(*single, *camera)
    assert all(x.dtype == torch.float32 for x in found)
    torch.testing.assert_close(found.means2d.double(), exact.means2d, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.conics.double(), exact.conics, atol=1e-6, rtol=1e-4)
    half = [x.bfloat16() for x in single]
    for got, wanted in zip(project(*half, *camera), project(*(x.float() for x in half), *camera)):
        assert torch.equal(got, wanted)


def test_autocast_changes_neither_the_projection_nor_its_gradient() -> None:
    results = []
    for enabled in (True, False):
        parameters = [x.float().requires_grad_() for x in gaussians()]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            seen = project(*parameters, pose().float(), INTRINSICS.float(), WIDTH, HEIGHT, NEAR)
            (seen.means2d.sum() + seen.conics.sum() + seen.depths.sum()).backward()
        results.append([*seen, *(x.grad for x in parameters)])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_drawn_and_leaves_the_others_alone(bad: float) -> None:
    exact = project(*gaussians(5), pose(), INTRINSICS, WIDTH, HEIGHT, NEAR)
    for which in range(3):
        values = gaussians(5)
        values[which][:, 2] = bad
        seen = project(*values, pose(), INTRINSICS, WIDTH, HEIGHT, NEAR)
        assert (seen.variances[:, 2] == 0).all()
        others = [0, 1, 3, 4]
        assert all(torch.equal(x[..., others], y[..., others]) for x, y in zip(seen, exact))


def test_gradients() -> None:
    means, quaternions, scales = gaussians(6, spread=2.5)  # some beyond the clamp

    def outputs(*parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(project(*parameters, pose(), INTRINSICS, WIDTH, HEIGHT, NEAR))[:3]

    assert torch.autograd.gradcheck(outputs, tuple(x.requires_grad_() for x in (means, quaternions, scales)))
