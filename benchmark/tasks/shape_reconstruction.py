"""Protocol ``shape-sdf@1``: a shape from samples of its signed distance, scored as the mesh that comes out.

The predictor is shown the first ``observed`` distance samples of a test shape and gives back a field (``adapt``, timed
apart). The field is meshed by marching cubes, and as many points as the truth has are drawn from the mesh uniformly.
Lengths are in radii of the unit sphere that holds the shape (radius 1, as the data is stored).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import Adapts, AdlbenchError, Modality, Predictor, Queries, TaskKind
from adlbench.benchmark.metrics.geometry import compare_surfaces, intersection_over_union, sample_mesh
from adlbench.benchmark.metrics.isosurface import COARSEST, extract_mesh, sample_field
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.shape_pictures import RECONSTRUCTED, Mesh, compare_shapes, draw_mesh

FARTHEST = 2.0  # the diameter of the unit sphere: what every distance of an empty mesh counts as
WORST = {"chamfer_l1": FARTHEST * 1e3, "chamfer_l2": 2 * FARTHEST**2 * 1e3, "f_score": 0.0, "normal_consistency": 0.0}
SHOWN_POINTS = 8000  # of the true surface, in the report
PER_ITEM = ("chamfer_l1", "chamfer_l2", "f_score", "normal_consistency", "iou")


@runtime_checkable
class Interpolates(Protocol):
    """What a predictor may offer besides: shapes between two that it adapted to, for a picture."""

    def interpolate(self, first: Predictor, second: Predictor, share: float) -> Predictor: ...


@dataclass(frozen=True, kw_only=True)
class ShapeReconstruction(Evaluator):
    """One mesh for each test shape. A reconstruction without a surface counts with the worst possible values, see WORST."""

    kind: ClassVar[TaskKind] = TaskKind.RECONSTRUCTION
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.SHAPE})
    requires: ClassVar[frozenset[str]] = frozenset({"sdf_points", "sdf", "surface_points", "surface_normals"})
    offers: ClassVar[tuple[type, ...]] = (Adapts,)
    metrics: ClassVar[Mapping[str, str]] = {
        "chamfer_l2_median": "1e-3 of the radius squared: sum of the mean squared distances in both directions (DeepSDF), "
        "median over shapes",
        "chamfer_l2": "the same, mean over shapes",
        "chamfer_l1": "1e-3 of the radius: mean of accuracy and completeness, mean over shapes",
        "f_score": "harmonic mean of precision and recall at the distance `threshold`, mean over shapes",
        "normal_consistency": "mean |cosine| between nearest points' normals, both directions, mean over shapes",
        "iou": "of the insides, at the distance samples that were not shown (most of them near the surface: harder than "
        "the IoU of the volumes), mean over shapes",
    }

    observed: int = 8192  # distance samples shown to the predictor, the first of the item's
    resolution: int = 64  # cells of the marching cubes along an axis of [-1, 1]^3
    threshold: float = 0.02  # of the F-score
    batch_size: int = 32768  # points per call of the predictor
    pictures: int = 6  # shapes to draw

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        count = min(len(data.test), context.max_items or len(data.test))
        if count == 0:
            raise AdlbenchError("the test split has no items to score; give it at least one")
        scores: dict[str, list[float]] = {name: [] for name in PER_ITEM}
        meshes: list[Mesh] = []
        adapted: list[Predictor] = []
        empty, seconds = 0, 0.0
        for number in range(count):
            item = {name: value[0] for name, value in data.test.batch([number]).items()}
            started = time.perf_counter()
            shape = self._adapt(predictor, item, context)
            seconds += time.perf_counter() - started
            mesh = self._mesh(shape, context)
            values = self._surface_scores(mesh, item, np.random.default_rng([context.seed, number]))
            empty += len(mesh[1]) == 0
            for name, value in values.items():
                scores[name].append(value)
            held_out = item["sdf_points"][self.observed :], item["sdf"][self.observed :].numpy()
            if len(held_out[1]):
                inside = self._query(shape, held_out[0].numpy(), context) < 0
                scores["iou"].append(intersection_over_union(inside, held_out[1] < 0))
            if number < max(self.pictures, 2):
                meshes.append(mesh)
                adapted.append(shape)
            context.progress((number + 1) / count)

        result = Evaluation(
            notes={
                "num_items": count,
                "adapt_seconds": seconds,
                "observed": min(self.observed, data.test.batch([0])["sdf"].shape[1]),
                "empty_meshes": empty,
                "chamfer_l2_floor": self._floor(data, context),
            }
        )
        for name, per_item in scores.items():
            if per_item:
                result.items[name] = np.array(per_item)
                result.values[name] = float(np.mean(per_item))
        result.items["chamfer_l2_median"] = result.items["chamfer_l2"]
        result.values["chamfer_l2_median"] = float(np.median(scores["chamfer_l2"]))
        if not scores["iou"]:
            result.absent["iou"] = f"all distance samples are shown; it needs some beyond the first {self.observed}"
        self._draw(result, predictor, adapted, meshes, data, context)
        return result

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        """The field of ``batch_size`` shapes on a coarse grid; adaptation is not part of it."""
        item = {name: value[0] for name, value in data.test.batch([0]).items()}
        shape = cast(Queries, self._adapt(predictor, item, context))
        axis = torch.linspace(-1, 1, COARSEST + 1)
        grid = torch.cartesian_prod(axis, axis, axis).to(context.device)  # [33^3, 3]

        def call() -> object:
            with torch.no_grad():
                return [shape.query(part) for _ in range(batch_size) for part in grid.split(self.batch_size)]

        return call, batch_size * len(grid)

    # -------------------------------------------------------------------------------------------------------- one shape
    def _adapt(self, predictor: Predictor, item: Mapping[str, Tensor], context: EvaluationContext) -> Predictor:
        observation = {name: item[name][: self.observed].to(context.device) for name in ("sdf_points", "sdf")}
        shape = cast(Adapts, predictor).adapt(observation)
        if context.device.type == "cuda":
            torch.cuda.synchronize(context.device)  # what was adapted is timed
        if not isinstance(shape, Queries):
            raise AdlbenchError(f"adapt returned a {type(shape).__name__}, which offers no query(points)")
        return shape

    def _query(self, shape: Predictor, points: NDArray, context: EvaluationContext) -> NDArray[np.floating]:
        """Signed distances [M] at ``points`` [M, 3]."""
        parts = []
        for part in torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32)).split(self.batch_size):
            with torch.no_grad():
                values = cast(Queries, shape).query(part.to(context.device))
            if values.shape != (len(part), 1):
                raise AdlbenchError(
                    f"query returned {tuple(values.shape)} for {len(part)} points, not ({len(part)}, 1)"
                )
            parts.append(values[:, 0].float().cpu().numpy())
        return np.concatenate(parts)

    def _mesh(self, shape: Predictor, context: EvaluationContext) -> Mesh:
        return extract_mesh(sample_field(lambda points: self._query(shape, points, context), self.resolution))

    def _surface_scores(self, mesh: Mesh, item: Mapping[str, Tensor], rng: np.random.Generator) -> dict[str, float]:
        vertices, faces = mesh
        if len(faces) == 0:
            return dict(WORST)
        truth, truth_normals = item["surface_points"].numpy(), item["surface_normals"].numpy()
        points, normals = sample_mesh(vertices, faces, len(truth), rng)
        found = compare_surfaces(points, truth, normals, truth_normals)
        return {
            "chamfer_l1": found.chamfer_l1 * 1e3,
            "chamfer_l2": found.chamfer_l2 * 1e3,
            "f_score": found.f_score(self.threshold),
            "normal_consistency": found.normal_consistency,
        }

    # -------------------------------------------------------------------------------------------------------- all of them
    def _floor(self, data: EvaluationData, context: EvaluationContext) -> float:
        """Chamfer-L2 between two halves of the first shape's true points, for half of the density: 1e-3, halved."""
        points = data.test.batch([0])["surface_points"][0].numpy()
        if len(points) < 2:
            return 0.0
        order = np.random.default_rng(context.seed).permutation(len(points))
        half = len(points) // 2
        return compare_surfaces(points[order[:half]], points[order[half:]]).chamfer_l2 * 1e3 / 2

    def _draw(
        self, result: Evaluation, predictor: Predictor, adapted: list[Predictor], meshes: list[Mesh],
        data: EvaluationData, context: EvaluationContext,
    ) -> None:  # fmt: skip
        shown = min(self.pictures, len(meshes))
        if shown == 0:
            return
        truth = data.test.batch(np.arange(shown))
        pairs = [(truth["surface_points"][i].numpy(), truth["surface_normals"][i].numpy()) for i in range(shown)]
        result.images["truth, reconstruction"] = compare_shapes(pairs, meshes[:shown])
        arrays: dict[str, NDArray] = {}
        for number, ((points, normals), (vertices, faces)) in enumerate(zip(pairs, meshes)):
            kept = slice(0, SHOWN_POINTS)  # uniform samples: the first are as good as any
            arrays |= {f"true_points_{number}": points[kept], f"true_normals_{number}": normals[kept]}
            arrays |= {f"vertices_{number}": vertices, f"faces_{number}": faces}
        result.exhibits["shapes"] = Exhibit("meshes", arrays)
        if isinstance(predictor, Interpolates) and len(adapted) > 1:
            steps = np.linspace(0, 1, 7)
            between = [self._mesh(predictor.interpolate(adapted[0], adapted[1], float(t)), context) for t in steps]
            result.images["interpolation"] = np.concatenate([draw_mesh(m, RECONSTRUCTED) for m in between], axis=1)
