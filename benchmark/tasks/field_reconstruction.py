"""Protocol ``field-rgb8@1``: a signal asked for at the test positions, scored as the image that would be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, DataSchema, Modality, Predictor, Queries, Split, TaskKind
from adlbench.benchmark.metrics.image import WINDOW, psnr, quantize, ssim
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.view_pictures import error_picture

ERROR_GAIN = 4  # of the picture of the error: most errors are too small to be seen


@dataclass(frozen=True, kw_only=True)
class FieldReconstruction(Evaluator):
    """The predictor is asked for its value at the coordinates of every test sample."""

    kind: ClassVar[TaskKind] = TaskKind.RECONSTRUCTION
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.FIELD})
    requires: ClassVar[frozenset[str]] = frozenset({"coords", "value"})
    offers: ClassVar[tuple[type, ...]] = (Queries,)
    metrics: ClassVar[Mapping[str, str]] = {
        "psnr": "dB, from the mean squared error over all test samples and channels, after clipping and 8 bits",
        "ssim": "gaussian 11x11, sigma 1.5, valid region; only where the test samples are all pixels of an image",
    }

    batch_size: int = 16384  # samples per call of the predictor

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        count = len(data.test)  # all samples are one item, the signal: ``max_items`` never cuts it
        if count == 0:
            raise AdlbenchError("the test split has no samples to score; give it at least one")
        queries = cast(Queries, predictor)
        test = data.test.batch(np.arange(count))
        value = self._query(queries, test["coords"], context, lambda share: context.progress(0.8 * share))
        stored, truth = quantize(value), quantize(test["value"])
        if stored.shape != truth.shape:
            raise AdlbenchError(f"values came back as {tuple(stored.shape)}, not as {tuple(truth.shape)}")
        result = Evaluation(predictions={"value": stored.numpy()}, notes={"num_samples": count})
        result.items["psnr"] = psnr(stored.T[:, None], truth.T[:, None]).double().reshape(1).numpy()
        result.values["psnr"] = float(result.items["psnr"][0])

        grid = _raster(test, truth, data.schema)
        if grid is None:
            result.absent["ssim"] = "the test samples are not all the pixels of an image"
        elif min(data.schema.image_size) < WINDOW:
            result.absent["ssim"] = f"its window of {WINDOW} pixels does not fit into {data.schema.image_size}"
        else:
            image = _raster(test, stored, data.schema)
            assert image is not None
            result.items["ssim"] = ssim(image, grid).double().reshape(1).numpy()
            result.values["ssim"] = float(result.items["ssim"][0])
        if min(data.schema.image_size) > 0:
            picture = self._picture(queries, data, context)
            result.images["truth, prediction, error"] = picture
            truth_shown, shown, _ = np.split(picture[None], 3, axis=2)
            pair = {"truth": truth_shown, "prediction": shown, "error": error_picture(truth_shown, shown)}
            result.exhibits["picture"] = Exhibit("views", pair)
        context.progress(1.0)
        return result

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        indices = np.arange(batch_size) % len(data.test)  # a batch larger than the set repeats it
        coords = data.test.batch(indices)["coords"].to(context.device)
        queries = cast(Queries, predictor)

        def call() -> object:
            with torch.no_grad():
                return queries.query(coords)

        return call, batch_size

    def _query(
        self, queries: Queries, coords: Tensor, context: EvaluationContext, progress: Callable[[float], None]
    ) -> Tensor:
        """Values [M, C] on the CPU at ``coords`` [M, D]."""
        parts = []
        for start in range(0, len(coords), self.batch_size):
            with torch.no_grad():
                parts.append(queries.query(coords[start : start + self.batch_size].to(context.device)).cpu())
            progress(min(1.0, (start + self.batch_size) / len(coords)))
        return torch.cat(parts)

    def _picture(self, queries: Queries, data: EvaluationData, context: EvaluationContext) -> NDArray[np.uint8]:
        """uint8 [H, 3 W, 3]. Training pixels are drawn too: between them the others look at home."""
        height, width = data.schema.image_size
        coords = pixel_centres(height, width)
        image = quantize(self._query(queries, coords, context, lambda share: None)).reshape(height, width, -1)
        truth = torch.zeros_like(image)
        for split in (data.train, data.test):
            _scatter(truth, split)
        error = (image.int() - truth.int()).abs() * ERROR_GAIN
        pictures = torch.cat([truth, image, error.clamp(max=255).to(torch.uint8)], dim=1)
        return pictures.expand(-1, -1, 3).numpy() if pictures.shape[-1] == 1 else pictures[..., :3].numpy()


def pixel_centres(height: int, width: int) -> Tensor:
    """Coordinates [H * W, 2] of the pixels, row by row: x right, y down, the image's edges at -1 and 1."""
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


def pixel_indices(coords: Tensor, height: int, width: int) -> Tensor:
    """The row-major index [M] of the pixel that each of ``coords`` [M, 2] lies in."""
    column = ((coords[:, 0] + 1) / 2 * width).floor().long().clamp(0, width - 1)
    row = ((coords[:, 1] + 1) / 2 * height).floor().long().clamp(0, height - 1)
    return row * width + column


def _raster(samples: Mapping[str, Tensor], value: Tensor, schema: DataSchema) -> Tensor | None:
    """``value`` [M, C] as an image [C, H, W], or None where the samples are not its pixels, each once."""
    height, width = schema.image_size
    if samples["coords"].shape[1] != 2 or len(value) != height * width:
        return None
    index = pixel_indices(samples["coords"], height, width)
    if len(index.unique()) != len(index):
        return None
    image = torch.empty_like(value)
    image[index] = value
    return image.T.reshape(-1, height, width)


def _scatter(image: Tensor, split: Split) -> None:
    samples = split.all()
    height, width, channels = image.shape
    image.view(-1, channels)[pixel_indices(samples["coords"], height, width)] = quantize(samples["value"])
