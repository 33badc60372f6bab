"""The bilinear grid: its system against dense least squares, its interpolation against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Budget, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.datasets.reconstruction.photographs import Photographs
from adlbench.methods.reconstruction import bilinear_grid
from adlbench.methods.reconstruction.bilinear_grid import BilinearGrid


def context_of(folder: Path) -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=1),
        work_folder=folder,
        seed_parts=("test",),
        clock=Clock(),
    )


def samples(count: int, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (count, 2)), rng.uniform(0, 1, (count, channels))


def test_the_system_s_interpolation_is_the_predictor_s() -> None:
    """Also at the corners: a half cell's shift between the two would show."""
    coords = np.concatenate([samples(200)[0], [[-1, -1], [1, 1], [-1, 1], [1, -1]]])
    grid = torch.rand(3, 5, 7, dtype=torch.float64)
    matrix = bilinear_grid._sampling_matrix(coords, 5, 7)
    asked = bilinear_grid.interpolate(grid, torch.from_numpy(coords))
    np.testing.assert_allclose(matrix @ grid.flatten(1).numpy().T, asked.numpy(), atol=1e-12)
    corners = torch.stack([grid[:, 0, 0], grid[:, -1, -1], grid[:, -1, 0], grid[:, 0, -1]])
    torch.testing.assert_close(asked[-4:], corners)


def test_the_fit_is_the_least_squares_solution() -> None:
    coords, value = samples(60)
    method = BilinearGrid(smoothness=0.05, tolerance=1e-12)
    found = bilinear_grid.fit(coords, value, 4, 6, method)
    rows = [bilinear_grid._sampling_matrix(coords, 4, 6).toarray()]
    d4, d6 = (bilinear_grid._second_differences(n).toarray() for n in (4, 6))
    rows += [np.sqrt(0.05) * np.kron(d4, np.eye(6)), np.sqrt(0.05) * np.kron(np.eye(4), d6)]
    matrix = np.concatenate(rows)
    mean = value.mean(axis=0)
    target = np.concatenate([value - mean, np.zeros((len(matrix) - 60, 2))])
    expected, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    np.testing.assert_allclose(found, (expected + mean).T.reshape(2, 4, 6), atol=1e-8)


def test_linear_ramps_are_met_exactly_between_the_samples(tmp_path: Path) -> None:
    """Second differences of a plane are zero, so that the smoothness costs it nothing."""
    coords, _ = samples(50)
    plane = (0.5 + 0.2 * coords[:, :1] - 0.1 * coords[:, 1:]).astype(np.float32)
    schema = DataSchema(Modality.FIELD, ("coords", "value"), 50, 50, channels=1, image_size=(16, 16))
    method = BilinearGrid(size=400)
    data = TrainingData(schema, ArraySplit(coords=coords.astype(np.float32), value=plane))
    method.setup(data, context_of(tmp_path))
    method.step()
    asked = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (100, 2)).astype(np.float32))
    expected = 0.5 + 0.2 * asked[:, :1] - 0.1 * asked[:, 1:]
    torch.testing.assert_close(method.predictor().query(asked), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("channels", "shape"), [(1, (445, 445)), (3, (257, 257))])
def test_it_has_no_more_numbers_than_a_siren(channels: int, shape: tuple[int, int]) -> None:
    schema = DataSchema(Modality.FIELD, ("coords", "value"), 1, 1, channels=channels, image_size=(256, 256))
    assert bilinear_grid.grid_size(BilinearGrid().size, schema) == shape
    siren = 3 * 256 + 3 * 257 * 256 + 257 * channels
    assert 0.98 * siren < channels * shape[0] * shape[1] <= siren


def test_it_fits_and_interpolates_a_photograph(tmp_path: Path) -> None:
    for held_out, least in ((False, 45.0), (True, 20.0)):
        dataset = Photographs(size=32, held_out=held_out)
        method = BilinearGrid(size=3_100)
        method.setup(TrainingData(dataset.schema("camera"), dataset.load("camera", "train")), context_of(tmp_path))
        method.step()
        test = dataset.load("camera", "test").all()
        error = method.predictor().query(test["coords"]) - test["value"]
        assert -10 * error.square().mean().log10() > least


def test_restored_without_data_it_answers_the_same(tmp_path: Path) -> None:
    dataset = Photographs(size=16)
    method, other = BilinearGrid(size=400), BilinearGrid(size=400)
    method.setup(TrainingData(dataset.schema("camera"), dataset.load("camera", "train")), context_of(tmp_path))
    method.step()
    other.setup(TrainingData(dataset.schema("camera"), AbsentSplit(256)), context_of(tmp_path))
    other.load_state_dict(method.state_dict())
    coords = dataset.load("camera", "test").all()["coords"]
    assert torch.equal(method.predictor().query(coords), other.predictor().query(coords))
    assert method.num_parameters() == other.num_parameters() == 400
