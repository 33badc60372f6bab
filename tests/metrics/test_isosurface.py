"""Sampling a field coarse to fine, and the mesh of its zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import trimesh

from adlbench.benchmark.metrics.isosurface import extract_mesh, sample_field

CENTRE = np.array([0.1, -0.05, 0.03])


def ball(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - CENTRE, axis=1) - 0.6


def rod(points: np.ndarray) -> np.ndarray:
    """Thinner than a coarse cell, and between its corners."""
    return np.hypot(points[:, 0] - 1 / 32, points[:, 2] - 1 / 32) - 0.02


def everywhere(field: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
    axis = np.linspace(-1, 1, n + 1)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return field(grid.astype(np.float32)).reshape((n + 1,) * 3).astype(np.float32)


@pytest.mark.parametrize("field", [ball, rod, lambda p: ball(p).clip(-0.1, 0.1)], ids=["ball", "rod", "clamped ball"])
@pytest.mark.parametrize("resolution", [64, 128])
def test_coarse_to_fine_gives_the_surface_of_the_full_grid(
    field: Callable[[np.ndarray], np.ndarray], resolution: int
) -> None:
    asked = []

    def counted(points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return field(points)

    quick, full = sample_field(counted, resolution), everywhere(field, resolution)
    np.testing.assert_array_equal(quick < 0, full < 0)
    for fast, slow in zip(extract_mesh(quick), extract_mesh(full)):
        np.testing.assert_allclose(fast, slow, atol=1e-5)
    assert sum(asked) < full.size / (2.5 if resolution == 64 else 4)


def test_small_resolutions_ask_everywhere() -> None:
    np.testing.assert_array_equal(sample_field(ball, 24), everywhere(ball, 24))
    assert sample_field(ball, 30).shape == (31, 31, 31)


def test_field_that_is_small_and_flat_is_not_looked_into() -> None:
    """What a network answers before it is trained."""
    asked = []

    def untrained(points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return 0.01 + 0.001 * points[:, 0]

    values = sample_field(untrained, 128)
    assert sum(asked) == 33**3
    np.testing.assert_allclose(values, everywhere(lambda p: 0.01 + 0.001 * p[:, 0], 128), atol=1e-6)


def test_mesh_of_a_ball() -> None:
    vertices, faces = extract_mesh(sample_field(ball, 64))
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.005)  # positive: faces look outwards
    np.testing.assert_allclose(mesh.centroid, CENTRE, atol=1e-3)
    np.testing.assert_allclose(ball(vertices), 0, atol=1e-3)


@pytest.mark.parametrize("value", [1.0, -1.0, 0.0, np.nan])
def test_no_surface_gives_an_empty_mesh(value: float) -> None:
    vertices, faces = extract_mesh(np.full((9, 9, 9), value, dtype=np.float32))
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


def test_holes_of_nan_do_not_reach_the_mesh() -> None:
    values = everywhere(ball, 16)
    values[0, 0, 0] = np.nan
    assert np.isfinite(extract_mesh(values)[0]).all()
