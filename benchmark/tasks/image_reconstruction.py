"""Protocol ``image-rgb8@1``: images that went through a model's code, scored as they would be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, Modality, Predictor, Reconstructs, TaskKind
from adlbench.benchmark.metrics.image import WINDOW, psnr, quantize, ssim
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.class_pictures import enlarge
from adlbench.benchmark.tasks.view_pictures import error_picture


@dataclass(frozen=True, kw_only=True)
class ImageReconstruction(Evaluator):
    """The predictor sees each test image and returns it as its code tells it."""

    kind: ClassVar[TaskKind] = TaskKind.RECONSTRUCTION
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    offers: ClassVar[tuple[type, ...]] = (Reconstructs,)
    metrics: ClassVar[Mapping[str, str]] = {
        "squared_error": "squared error of an image, summed over its pixels and channels in [0, 1], mean over images",
        "psnr": "dB, of each image from its mean squared error, then the mean over images",
        "ssim": "gaussian 11x11, sigma 1.5, valid region, of each image, then the mean; absent below 11 pixels",
    }

    batch_size: int = 100  # images per call of the predictor
    pictures: int = 12  # pairs to draw

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        count = min(len(data.test), context.max_items or len(data.test))
        if count == 0:
            raise AdlbenchError("the test split has no items to score; give it at least one")
        too_small = min(data.schema.image_size) < WINDOW
        stored: list[Tensor] = []
        parts: dict[str, list[Tensor]] = {name: [] for name in self.metrics if not (name == "ssim" and too_small)}
        for start in range(0, count, self.batch_size):
            truth = data.test.batch(np.arange(start, min(start + self.batch_size, count)))["image"]
            with torch.no_grad():
                output = cast(Reconstructs, predictor).reconstruct({"image": truth.to(context.device)})
            if output.shape != truth.shape:
                raise AdlbenchError(f"images came back as {tuple(output.shape)}, not as {tuple(truth.shape)}")
            image = quantize(output).cpu()
            stored.append(image)
            error = (image.double() - truth.double()) / 255
            parts["squared_error"].append(error.square().flatten(1).sum(1))
            parts["psnr"].append(psnr(image, truth))
            if "ssim" in parts:
                parts["ssim"].append(ssim(image, truth))
            context.progress((start + len(truth)) / count)
        items = {name: torch.cat(values).double().numpy() for name, values in parts.items()}
        images = torch.cat(stored)
        result = Evaluation(
            items=items,
            values={name: float(value.mean()) for name, value in items.items()},
            predictions={"image": images.numpy()},
            notes={"num_items": count},
        )
        if too_small:
            height, width = data.schema.image_size
            result.absent["ssim"] = f"its window of {WINDOW} pixels does not fit into {height}x{width}"
        chosen = np.unique(np.linspace(0, count - 1, min(self.pictures, count)).astype(int))
        result.images["truth above, reconstruction below"] = compare(
            data.test.batch(chosen)["image"], images[torch.as_tensor(chosen)]
        )
        pair = [as_rgb(x) for x in (data.test.batch(chosen)["image"], images[torch.as_tensor(chosen)])]
        difference = error_picture(*pair)
        result.exhibits["reconstructions"] = Exhibit(
            "views", {"truth": pair[0], "prediction": pair[1], "error": difference}
        )
        return result

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        indices = np.arange(batch_size) % len(data.test)  # a batch larger than the set repeats it
        inputs = {"image": data.test.batch(indices)["image"].to(context.device)}
        frozen = cast(Reconstructs, predictor)

        def call() -> object:
            with torch.no_grad():
                return frozen.reconstruct(inputs)

        return call, batch_size


def as_rgb(image: Tensor) -> NDArray[np.uint8]:
    """uint8 [N, C, H, W] as [N, H, W, 3]; grey is repeated."""
    rgb = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]
    return rgb.permute(0, 2, 3, 1).contiguous().numpy()


def compare(truth: Tensor, image: Tensor, side: int = 84) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: a column for each of the images uint8 [N, C, H, W], truth above."""
    columns = []
    for pair in zip(truth, image, strict=True):
        rgb = [item.expand(3, -1, -1) if len(item) == 1 else item[:3] for item in pair]
        columns.append(np.concatenate([enlarge(item.permute(1, 2, 0).numpy(), side) for item in rgb]))
    return np.concatenate(columns, axis=1)
