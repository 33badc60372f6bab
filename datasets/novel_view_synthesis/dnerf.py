"""D-NeRF's synthetic scenes (Pumarola et al. 2021): a moving object, every view taken at a time of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema
from adlbench.datasets.formats import blender
from adlbench.datasets.novel_view_synthesis.nerf_synthetic import WHITE, NerfSynthetic


@dataclass(frozen=True)
class DNeRF(NerfSynthetic):
    """Laid out as NeRF-synthetic, with a ``time`` in [0, 1] for each frame."""

    folder: str = "dnerf"

    def schema(self, instance: str = "all") -> DataSchema:
        schema = super().schema(instance)
        return replace(schema, fields=(*schema.fields, "time"))

    def load(self, instance: str, split: str) -> ArraySplit:
        frames = self._frames(instance, split)
        path = self._folder / instance / f"transforms_{split}.json"
        if frames.times is None or frames.times.min() < 0 or frames.times.max() > 1:
            raise DataError(f"{path}: every frame needs a time in [0, 1]; this is no scene of D-NeRF")
        return ArraySplit(**blender.read_views(frames, self.downscale, WHITE), time=frames.times.astype(np.float32))
