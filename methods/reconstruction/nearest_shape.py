"""Trivial reconstruction of shapes: the training shape whose distances agree best with what is known of the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class NearestShape(Method):
    """Keeps the samples of all training shapes in one step; their distances in between are interpolated."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.SHAPE})

    compared: int = 1024  # of the observed samples
    shortlist: int = (
        8  # shapes that are compared well, chosen with the stored sample that is nearest to each observed one
    )
    clamp: float = 0.1  # distances beyond it are all the same when shapes are compared

    def skip(self, schema: DataSchema) -> str | None:
        if not {"sdf_points", "sdf"} <= set(schema.fields):
            return "keeps the fields 'sdf_points' and 'sdf', which this dataset does not have"
        return None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        self.points = torch.empty(0, 0, 3)  # [N, S, 3]
        self.distances = torch.empty(0, 0)  # [N, S]
        if data.present:
            check_items(data)

    def step(self) -> Mapping[str, Tensor]:
        items = self.data.train.all()
        points, distances = items["sdf_points"], items["sdf"]
        if "surface_points" in items:  # they are samples too: the distance there is 0
            surface = items["surface_points"]
            points = torch.cat([points, surface], 1)
            distances = torch.cat([distances, surface.new_zeros(surface.shape[:2])], 1)
        self.points, self.distances = points, distances
        self.context.count(distances.numel())
        return {"shapes": torch.tensor(float(len(distances)))}

    def predictor(self) -> NearestShapePredictor:
        fields = [InterpolatedDistance(p.numpy(), d.numpy()) for p, d in zip(self.points, self.distances)]
        return NearestShapePredictor(fields, self.compared, self.shortlist, self.clamp)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.distances = state["points"].cpu(), state["distances"].cpu()


class NearestShapePredictor:
    def __init__(self, fields: list[InterpolatedDistance], compared: int, shortlist: int, clamp: float):
        self.fields, self.compared, self.shortlist, self.clamp = fields, compared, shortlist, clamp

    def adapt(self, observation: Batch) -> InterpolatedDistance:
        points = observation["sdf_points"][: self.compared].cpu().numpy()
        truth = observation["sdf"][: self.compared].cpu().numpy()
        few = slice(None, self.compared // 4)
        rough = [self._error(field.nearest(points[few]), truth[few]) for field in self.fields]
        candidates = [self.fields[i] for i in np.argsort(rough, kind="stable")[: self.shortlist]]
        return min(candidates, key=lambda field: self._error(field(points), truth))

    def _error(self, distances: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
        return float(np.abs(distances.clip(-self.clamp, self.clamp) - truth.clip(-self.clamp, self.clamp)).mean())


class InterpolatedDistance:
    """A signed distance from scattered samples: moving least squares of first order over the nearest samples.

    The value at a position is that of the plane fitted to the samples around it, weighted by 1 / distance^2. It is kept
    within what a signed distance can be, given those samples: it changes at most by the way that one goes.
    """

    neighbours = 8
    far = 0.1  # where the distance is certainly larger, the nearest sample answers alone
    ridge = 3e-2  # on the slope: decides where the neighbours do not

    def __init__(self, points: NDArray[np.floating], distances: NDArray[np.floating]):
        """points [S, 3], distances [S]."""
        self.tree, self.distances = cKDTree(points), distances

    def nearest(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """The distance [M] of the sample nearest to each of ``points`` [M, 3]."""
        return self.distances[self.tree.query(points)[1]]

    def __call__(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Signed distances [M] at ``points`` [M, 3]."""
        away, index = self.tree.query(points)
        distances = self.distances[index].astype(np.float64)
        near = np.abs(distances) - away < self.far
        distances[near] = self._fitted(points[near])
        return distances

    def _fitted(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        away, index = self.tree.query(points, k=min(self.neighbours, len(self.distances)))
        values = self.distances[index].astype(np.float64)  # [M, K]
        scale = away[:, -1:] + 1e-12
        weight = 1 / (np.square(away / scale) + 1e-4)
        weight /= weight.sum(1, keepdims=True)
        offset = (self.tree.data[index] - points[:, None]) / scale[..., None]  # [M, K, 3]
        mean_offset = (weight[..., None] * offset).sum(1)
        mean_value = (weight * values).sum(1)
        centred, rest = offset - mean_offset[:, None], values - mean_value[:, None]
        weighted = weight[..., None] * centred
        normal_matrix = weighted.transpose(0, 2, 1) @ centred + self.ridge * np.eye(3)
        slope = np.linalg.solve(normal_matrix, (weighted * rest[..., None]).sum(1)[..., None])[..., 0]  # [M, 3]
        fitted = mean_value - (slope * mean_offset).sum(1)
        return np.clip(fitted, (values - away).max(1), (values + away).min(1))

    def query(self, points: Tensor) -> Tensor:
        """Signed distances [M, 1] at points [M, 3]."""
        return torch.from_numpy(self(points.cpu().numpy())).to(points)[:, None]
