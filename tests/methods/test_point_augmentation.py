"""Random changes to point clouds keep what they must."""

from __future__ import annotations

import math

import pytest
import torch

from adlbench.methods.base.points import choose_points, jitter, random_rotations, rotate


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_keeps_height_and_distances(axis: int) -> None:
    points = torch.randn(5, 40, 3)
    turned = rotate({"points": points}, axis, generator())["points"]
    torch.testing.assert_close(turned[..., axis], points[..., axis])
    torch.testing.assert_close(turned @ turned.mT, points @ points.mT, atol=1e-5, rtol=1e-4)
    assert float((turned - points).abs().flatten(1).amax(1).min()) > 1e-3
    # no reflection: the triple product of three points keeps its sign
    torch.testing.assert_close(torch.linalg.det(turned[:, :3]), torch.linalg.det(points[:, :3]))


def test_normals_turn_with_their_points() -> None:
    batch = {"points": torch.randn(3, 20, 3), "normals": torch.randn(3, 20, 3), "label": torch.arange(3)}
    turned = rotate(batch, 1, generator())
    product = (batch["points"] * batch["normals"]).sum(-1)
    torch.testing.assert_close((turned["points"] * turned["normals"]).sum(-1), product, atol=1e-5, rtol=1e-4)
    assert torch.equal(turned["label"], batch["label"])


def test_angles_are_uniform_over_the_circle() -> None:
    turned = torch.tensor([1.0, 0.0, 0.0]) @ random_rotations(4000, 1, generator())
    angle = torch.atan2(turned[:, 2], turned[:, 0])
    counts = torch.histc(angle, bins=8, min=-math.pi, max=math.pi)
    assert float((counts / 500 - 1).abs().max()) < 0.2


def test_jitter_has_the_paper_s_scale_and_clip() -> None:
    noise = jitter(torch.zeros(50, 400, 3), 0.01, 0.05, generator())
    assert float(noise.std()) == pytest.approx(0.01, rel=0.02)
    assert float(jitter(torch.zeros(50, 400, 3), 0.05, 0.05, generator()).abs().max()) == pytest.approx(0.05)


def test_chosen_points_keep_their_labels_and_normals() -> None:
    points = torch.randn(3, 30, 3)
    batch = {
        "points": points,
        "normals": -points,
        "point_label": torch.arange(90).view(3, 30),
        "label": torch.arange(3),
    }
    chosen = choose_points(batch, 12, generator())
    assert chosen["points"].shape == (3, 12, 3)
    assert torch.equal(chosen["normals"], -chosen["points"])
    flat = points.flatten(0, 1)
    assert torch.equal(flat[chosen["point_label"]], chosen["points"])
    assert torch.equal(chosen["label"], batch["label"])
    assert len(chosen["point_label"][0].unique()) == 12  # without repetition
    assert not torch.equal(choose_points(batch, 12, generator(1))["points"], chosen["points"])


def test_fewer_points_than_asked_for_are_all_kept() -> None:
    batch = {"points": torch.randn(2, 5, 3)}
    assert choose_points(batch, 100, generator())["points"] is batch["points"]


def test_the_generator_decides() -> None:
    batch = {"points": torch.randn(2, 9, 3)}
    torch.manual_seed(1)
    first = jitter(rotate(batch, 1, generator())["points"], 0.1, 0.3, generator())
    torch.manual_seed(2)
    assert torch.equal(first, jitter(rotate(batch, 1, generator())["points"], 0.1, 0.3, generator()))
