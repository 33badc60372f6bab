"""The set of Gaussians: initial size, colour and background, and Adam's state when the number changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn.gaussian_cloud import (
    GaussianCloud,
    View,
    lower_opacities,
    neighbour_distances,
    rearrange,
)
from adlbench.methods.nn.gaussian_projection import covariances

POSE = torch.eye(4)
POSE[2, 3] = 3.0
INTRINSICS = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]])


def cloud(count: int = 6, degree: int = 1) -> GaussianCloud:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator) - 0.5
    made = GaussianCloud.from_points(points, torch.rand(count, 3, generator=generator), 0.4, degree)
    with torch.no_grad():
        made.quaternions.add_(0.5 * torch.randn(4, count, generator=generator))
        made.sh_rest.add_(0.3 * torch.randn(made.sh_rest.shape, generator=generator))
    return made


def render(made: GaussianCloud, background: Tensor | None = None, degree: int = 1, depth: bool = False) -> View:
    background = torch.ones(3) if background is None else background
    return made.render(POSE, INTRINSICS, 16, 12, background, degree=degree, near=0.2, max_alpha=0.99, depth=depth)


def adam(made: GaussianCloud) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": [p], "name": name} for name, p in made.named_parameters()], lr=0.01, eps=1e-15)


def test_initial_size_is_the_distance_to_the_three_nearest_neighbours() -> None:
    """Root mean square, as in the released code; a point is not its own neighbour."""
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 4], [50, 0, 0]])
    distances = neighbour_distances(points)
    assert float(distances[0]) == pytest.approx(math.sqrt((1 + 4 + 16) / 3))
    made = GaussianCloud.from_points(points, torch.rand(5, 3), 0.1, 3)
    torch.testing.assert_close(made.scales, distances.expand(3, -1))
    torch.testing.assert_close(made.opacities, torch.full((5,), 0.1))


def test_few_or_coinciding_points_get_a_size_too() -> None:
    assert neighbour_distances(torch.zeros(1, 3)).tolist() == [1.0]
    assert neighbour_distances(torch.tensor([[0.0, 0, 0], [3, 0, 0]])).tolist() == [3.0, 3.0]
    assert (neighbour_distances(torch.zeros(5, 3)) > 0).all()


def test_colour_is_the_harmonics_plus_one_half_and_never_negative() -> None:
    """One Gaussian fills the view; its colour is 0.5 + C0 sh0, clamped at zero from below, seen along (mean - camera)."""
    made = GaussianCloud.from_points(torch.zeros(1, 3), torch.tensor([[0.9, 0.5, -0.4]]), 0.9, 1)
    with torch.no_grad():
        made.log_scales.fill_(3.0)
    rgb = render(made, torch.zeros(3)).rgb[:, 6, 8] / 0.9
    torch.testing.assert_close(rgb, torch.tensor([0.9, 0.5, 0.0]), atol=2e-3, rtol=0)
    with torch.no_grad():  # the camera looks along +z: of the first band (-y, z, -x) only z remains
        made.sh_rest[1, 1] = 0.2 / 0.4886025
    assert float(render(made, torch.zeros(3)).rgb[1, 6, 8].detach() / 0.9) == pytest.approx(0.7, abs=5e-3)
    assert float(render(made, torch.zeros(3), degree=0).rgb[1, 6, 8].detach() / 0.9) == pytest.approx(0.5, abs=5e-3)


def test_background_shines_through_and_has_a_gradient() -> None:
    made = cloud()
    background = torch.tensor([0.2, 0.5, 1.0], requires_grad=True)
    view = render(made, background)
    black = render(made, torch.zeros(3))
    torch.testing.assert_close(view.rgb, black.rgb + (1 - view.opacity) * background[:, None, None])
    view.rgb.sum().backward()
    assert background.grad is not None
    torch.testing.assert_close(background.grad, (1 - view.opacity).sum().expand(3))


def test_every_parameter_has_a_gradient_from_colour_and_from_depth() -> None:
    made = cloud()
    render(made).rgb.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in made.parameters())
    made.zero_grad()
    render(made, depth=True).depth.square().sum().backward()
    for name in ("means", "log_scales", "quaternions", "opacity_logits"):
        assert (getattr(made, name).grad != 0).any()


def test_a_gaussian_that_is_not_a_number_is_not_drawn() -> None:
    for name in ("means", "log_scales", "quaternions", "opacity_logits"):
        made = cloud()
        left = torch.tensor([0, 1, 2, 4, 5])
        others = cloud()
        rearrange(others, adam(others), left, torch.zeros(5, dtype=torch.bool))
        with torch.no_grad():
            getattr(made, name)[..., 3] = math.nan
        view = render(made)
        assert not view.visible[3]
        torch.testing.assert_close(view.rgb, render(others).rgb)


def test_a_gaussian_exactly_at_the_camera_spoils_no_gradient() -> None:
    """It is before the near plane, and its direction is none: 0 / 0."""
    made = cloud(degree=3)
    with torch.no_grad():
        made.means[:, 2] = -POSE[:3, 3]  # no rotation
    view = render(made, degree=3)
    assert view.rgb.isfinite().all()
    assert not view.visible[2]
    for gradient in torch.autograd.grad(view.rgb.sum(), list(made.parameters())):
        assert gradient.isfinite().all()
        assert not gradient[..., 2].any()


def test_no_points_and_points_that_are_not_finite_are_refused() -> None:
    for points in (torch.zeros(0, 3), torch.full((2, 3), math.nan)):
        with pytest.raises(DataError, match="at least one, and all of them finite"):
            neighbour_distances(points)


def test_gradient_of_the_whole_rendering_is_the_finite_difference() -> None:
    made = cloud(4).double()
    pose, intrinsics, background = POSE.double(), INTRINSICS.double(), torch.ones(3, dtype=torch.float64)
    with torch.no_grad():
        made.log_scales.fill_(0.7)  # wide: no alpha near a threshold

    def loss() -> Tensor:
        view = made.render(pose, intrinsics, 16, 12, background, degree=1, near=0.2, max_alpha=0.99, depth=True)
        return view.rgb.square().mean() + view.depth.square().mean()

    loss().backward()
    for parameter in made.parameters():
        assert parameter.grad is not None
        flat, step = parameter.data.view(-1), 1e-6
        for i in range(0, len(flat), 5):
            old = float(flat[i])
            flat[i] = old + step
            above = float(loss().detach())
            flat[i] = old - step
            below = float(loss().detach())
            flat[i] = old
            assert float(parameter.grad.view(-1)[i]) == pytest.approx((above - below) / (2 * step), abs=1e-7, rel=1e-5)


def test_samples_within_a_gaussian_have_its_mean_and_covariance() -> None:
    made = cloud(2)
    with torch.no_grad():
        made.log_scales.copy_(torch.tensor([[-1.0, 0.0], [0.0, -2.0], [0.5, 1.0]]))
    index = torch.tensor([1]).repeat(40_000)
    with torch.no_grad():
        samples = made.sample_within(index, torch.Generator().manual_seed(0))
        expected = covariances(made.quaternions, made.scales)[:, :, 1]
        torch.testing.assert_close(samples.mean(1), made.means[:, 1], atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(samples), expected, atol=0.1, rtol=0.05)


# ------------------------------------------------------------------------------------------------------- Adam's state
def stepped(made: GaussianCloud, optimizer: torch.optim.Adam) -> None:
    optimizer.zero_grad()
    render(made).rgb.square().sum().backward()
    optimizer.step()


def test_adams_moments_move_with_their_gaussians_and_start_at_zero_for_new_ones() -> None:
    made = cloud()
    optimizer = adam(made)
    for _ in range(3):
        stepped(made, optimizer)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    state = {name: {k: v.clone() for k, v in optimizer.state[p].items()} for name, p in made.named_parameters()}
    index, fresh = torch.tensor([4, 0, 0, 3]), torch.tensor([False, False, True, False])
    rearrange(made, optimizer, index, fresh)
    assert len(made) == 4
    assert len(optimizer.state) == len(list(made.parameters()))  # nothing of the old parameters is left
    for name, parameter in made.named_parameters():
        assert torch.equal(parameter, before[name][..., index])
        new = optimizer.state[parameter]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(new[moment][..., ~fresh], state[name][moment][..., index[~fresh]])
            assert not new[moment][..., fresh].any()
        assert float(new["step"]) == 3
    stepped(made, optimizer)
    assert all(len(group["params"]) == 1 and group["params"][0].grad is not None for group in optimizer.param_groups)


def test_dropping_a_gaussian_that_nobody_sees_does_not_change_how_the_others_move() -> None:
    seen = cloud()
    both = cloud()
    with torch.no_grad():
        for made in (seen, both):
            made.means[2, 2] = -10.0  # behind the camera
    optimizers = [adam(made) for made in (seen, both)]
    for made, optimizer in zip((seen, both), optimizers):
        stepped(made, optimizer)
    left = torch.tensor([0, 1, 3, 4, 5])
    rearrange(seen, optimizers[0], left, torch.zeros(5, dtype=torch.bool))
    for made, optimizer in zip((seen, both), optimizers):
        stepped(made, optimizer)
    for mine, others in zip(seen.parameters(), both.parameters()):
        torch.testing.assert_close(mine, others[..., left])


def test_opacity_reset_caps_opacities_and_forgets_their_moments_only() -> None:
    made = cloud()
    with torch.no_grad():
        made.opacity_logits[0] = -8.0  # fainter than the reset
    optimizer = adam(made)
    stepped(made, optimizer)
    kept = optimizer.state[made.means]["exp_avg"].clone()
    faint = float(made.opacities[0].detach())
    lower_opacities(made, optimizer, 0.01)
    assert made.opacities[1:].tolist() == pytest.approx([0.01] * 5)
    assert float(made.opacities[0].detach()) == faint
    state = optimizer.state[made.opacity_logits]
    assert not state["exp_avg"].any()
    assert not state["exp_avg_sq"].any()
    assert torch.equal(optimizer.state[made.means]["exp_avg"], kept)
