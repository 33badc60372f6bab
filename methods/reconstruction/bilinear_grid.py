"""A grid of values with bilinear interpolation: what a coordinate network of the same size has to beat.

The values are the solution of one linear system: samples are to be met, and where there is no sample the grid is to be
smooth. Nothing is learnt and nothing is iterated over epochs, so one step is the whole fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import cg
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class BilinearGrid(Method):
    """argmin over grids g of |A g - value|^2 + smoothness |D g|^2: A interpolates, D takes second differences."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.FIELD})

    size: int = 198_401  # numbers in the grid, at most; the default is those of a SIREN with 3 hidden layers of 256
    smoothness: float = 1e-3
    iterations: int = 2000  # of conjugate gradients, at most
    tolerance: float = 1e-6  # of the residual, relative

    def skip(self, schema: DataSchema) -> str | None:
        if not {"coords", "value"} <= set(schema.fields):
            return "fits fields, which need the items 'coords' and 'value'"
        return None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context, self.schema = context, data.schema
        rows, columns = grid_size(self.size, data.schema)
        self.grid = torch.full((data.schema.channels, rows, columns), 0.5, device=context.device)
        if data.present:
            check_items(data)
            self.train = data.train

    def step(self) -> Mapping[str, Tensor]:
        items = self.train.all()
        self.context.count(len(items["value"]))
        rows, columns = self.grid.shape[1:]
        grid = fit(items["coords"].numpy(), items["value"].numpy(), rows, columns, self)
        self.grid = torch.from_numpy(grid.astype(np.float32)).to(self.context.device)
        error = interpolate(self.grid, items["coords"].to(self.context.device)) - items["value"].to(self.context.device)
        return {"loss": error.square().mean()}

    def predictor(self) -> GridPredictor:
        return GridPredictor(self.grid.clone())

    def num_parameters(self) -> int:
        return self.grid.numel()


class GridPredictor:
    def __init__(self, grid: Tensor):
        self.grid = grid

    def query(self, points: Tensor) -> Tensor:
        return interpolate(self.grid, points).clamp(0, 1)


def grid_size(size: int, schema: DataSchema) -> tuple[int, int]:
    """(rows, columns) of the largest grid with at most ``size`` numbers and the image's proportions."""
    height, width = schema.image_size if min(schema.image_size) > 0 else (1, 1)
    nodes = size / max(schema.channels, 1)
    rows = max(2, math.floor(math.sqrt(nodes * height / width)))
    return rows, max(2, math.floor(nodes / rows))


def interpolate(grid: Tensor, coords: Tensor) -> Tensor:
    """Values [M, C] of ``grid`` [C, R, S], whose outer nodes lie at -1 and 1, at ``coords`` [M, 2] (x, y)."""
    # align_corners=True: the outer nodes are at the ends of the range, not half a cell inside
    value = functional.grid_sample(
        grid[None], coords[None, None].to(grid.dtype), "bilinear", "border", align_corners=True
    )
    return value[0, :, 0].T


def fit(coords: np.ndarray, value: np.ndarray, rows: int, columns: int, method: BilinearGrid) -> np.ndarray:
    """Node values [C, rows, columns] from samples ``coords`` [M, 2] and ``value`` [M, C]."""
    sampling = _sampling_matrix(coords.astype(np.float64), rows, columns)
    differences = sparse.vstack(
        [
            sparse.kron(_second_differences(rows), sparse.identity(columns)),
            sparse.kron(sparse.identity(rows), _second_differences(columns)),
        ]
    )
    system = (sampling.T @ sampling + method.smoothness * (differences.T @ differences)).tocsr()
    preconditioner = sparse.diags(1.0 / system.diagonal())
    nodes = []
    for channel in value.T.astype(np.float64):
        mean = channel.mean()  # constants are smooth: only the rest has to be solved for
        solution, _ = cg(
            system,
            sampling.T @ (channel - mean),
            rtol=method.tolerance,
            maxiter=method.iterations,
            M=preconditioner,
        )
        nodes.append(solution + mean)
    return np.stack(nodes).reshape(-1, rows, columns)


def _sampling_matrix(coords: np.ndarray, rows: int, columns: int) -> sparse.csr_matrix:
    """Sparse [M, rows * columns]: the bilinear weights of every sample."""
    low, weight = [], []
    for axis, nodes in ((1, rows), (0, columns)):
        position = np.clip((coords[:, axis] + 1) / 2 * (nodes - 1), 0, nodes - 1)
        first = np.minimum(np.floor(position), nodes - 2).astype(np.int64)
        low.append(first)
        weight.append(position - first)
    (row, column), (down, right) = low, weight
    sample = np.arange(len(coords))
    entries = [
        ((1 - down) * (1 - right), row * columns + column),
        ((1 - down) * right, row * columns + column + 1),
        (down * (1 - right), (row + 1) * columns + column),
        (down * right, (row + 1) * columns + column + 1),
    ]
    data = np.concatenate([entry[0] for entry in entries])
    index = np.concatenate([entry[1] for entry in entries])
    return sparse.csr_matrix((data, (np.tile(sample, 4), index)), shape=(len(coords), rows * columns))


def _second_differences(nodes: int) -> sparse.dia_matrix:
    """Sparse [nodes - 2, nodes]."""
    return sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(max(nodes - 2, 0), nodes))
