"""Which evaluator a protocol's name stands for. Named and versioned: a change that moves numbers gets a new version."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from adlbench.benchmark.tasks.base import Evaluator

PROTOCOLS: Mapping[str, str] = {
    "top1@1": "adlbench.benchmark.tasks.classification.Classification",
    "point-miou@1": "adlbench.benchmark.tasks.segmentation.PointSegmentation",
    "nvs-rgb8@1": "adlbench.benchmark.tasks.novel_view_synthesis.NovelViewSynthesis",
    "generation-fd@1": "adlbench.benchmark.tasks.generation.ImageGeneration",
    "image-rgb8@1": "adlbench.benchmark.tasks.image_reconstruction.ImageReconstruction",
    "field-rgb8@1": "adlbench.benchmark.tasks.field_reconstruction.FieldReconstruction",
    "shape-sdf@1": "adlbench.benchmark.tasks.shape_reconstruction.ShapeReconstruction",
}


def evaluator_class(protocol: str) -> type[Evaluator]:
    """Raises KeyError for a name that is not in the table."""
    module, _, name = PROTOCOLS[protocol].rpartition(".")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
