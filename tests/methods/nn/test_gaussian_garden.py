"""A real scene, gsplat's crop of the garden: 138,766 points as Gaussians, seen by a camera that really was there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adlbench.benchmark.api import data_root
from adlbench.methods.nn import gaussian_rasterizer
from adlbench.methods.nn.gaussian_cloud import GaussianCloud


@pytest.mark.needs_data
def test_both_backends_agree_on_a_real_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_root() / "gsplat_garden" / "test_garden.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    pytest.importorskip("numba")
    with np.load(path) as arrays:
        points, colours = torch.from_numpy(arrays["means3d"]).float(), torch.from_numpy(arrays["colors"]).float() / 255
        pose, intrinsics = torch.from_numpy(arrays["viewmats"][0]).float(), torch.from_numpy(arrays["Ks"][0]).float()
        width, height = int(arrays["width"]) // 4, int(arrays["height"]) // 4
    intrinsics[:2] /= 4
    cloud = GaussianCloud.from_points(points, colours, opacity=0.5, degree=0)
    images, gradients = [], []
    for backend in ("torch", "numba"):
        monkeypatch.setattr(gaussian_rasterizer, "backends", lambda like, name=backend: (name,))
        view = cloud.render(pose, intrinsics, width, height, torch.ones(3), degree=0, near=0.01, max_alpha=0.99)
        images.append(view.rgb.detach())
        gradients.append(
            torch.autograd.grad(view.rgb.square().mean(), [cloud.means, cloud.log_scales, cloud.opacity_logits])
        )
    assert 1e4 < int(view.visible.sum()) < len(points)
    assert float(view.opacity.detach().mean()) > 0.5
    # An alpha that rounding takes across 1/255, or transmittance across 1e-4, changes a pixel by that much at most.
    assert float((images[0] - images[1]).abs().max()) < 1 / 255
    assert float((images[0] - images[1]).abs().mean()) < 1e-6
    for a, b in zip(*gradients):
        assert float((a - b).norm() / a.norm()) < 1e-3
