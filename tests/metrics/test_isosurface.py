"""Sampling a field coarse to fine, and the mesh of its zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import trimesh

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.metrics import isosurface
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


def test_more_vertices_than_can_be_numbered_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound itself is 2^31. A surface everywhere: scikit-image's vertices, by its edges and at most as many again."""
    values = np.random.default_rng(0).standard_normal((11, 11, 11)).astype(np.float32)
    crossed = sum(int((np.sign(values).astype(int) * np.roll(np.sign(values), -1, axis) < 0).take(range(10), axis).sum())
                  for axis in range(3))  # fmt: skip
    vertices, _ = extract_mesh(values)
    assert crossed < len(vertices) < 2 * crossed
    monkeypatch.setattr(isosurface, "MAX_VERTICES", 2 * crossed)
    with pytest.raises(AdlbenchError, match=f"a surface through {crossed:,} edges"):
        extract_mesh(values)
    monkeypatch.setattr(isosurface, "MAX_VERTICES", 2 * crossed + 1)
    np.testing.assert_array_equal(extract_mesh(values)[0], vertices)
    smooth = extract_mesh(everywhere(ball, 10))[0]
    assert len(smooth) == isosurface._crossed_edges(everywhere(ball, 10))


@pytest.mark.parametrize("shape", [(0, 0, 0), (1, 1, 1), (4, 5, 4), (4, 4)])
def test_values_that_are_on_no_cube_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AdlbenchError, match="a cube of at least two points"):
        extract_mesh(np.ones(shape, dtype=np.float32))
    with pytest.raises(AdlbenchError, match="on 0 cells"):
        sample_field(ball, 0)


def test_one_cell_and_a_surface_at_the_border() -> None:
    """x = -0.5 in the only cell there is; and the zero exactly on the outermost points, which belong to neither side."""
    values = everywhere(lambda p: p[:, 0] + 0.5, 1)
    vertices, faces = extract_mesh(values)
    np.testing.assert_allclose(vertices[:, 0], -0.5)
    assert len(faces) == 2
    assert len(extract_mesh(everywhere(lambda p: p[:, 0] + 1, 4))[1]) == 0


def test_holes_of_nan_do_not_reach_the_mesh() -> None:
    values = everywhere(ball, 16)
    values[0, 0, 0] = np.nan
    assert np.isfinite(extract_mesh(values)[0]).all()
